// mmcpstore: the public API for browsers and Node. Nothing of Node in its imports; files are in mmcpstore/node.
import "./webassembly.js";

export type { ExternalMedium } from "./core/external-medium.js";
export type { FaultKind, FaultPlan } from "./core/faults.js";
export {
  type CardKind,
  type CutOutcome,
  type Damage,
  IDEAL,
  type Policy,
  PROFILES,
  type ProfileName,
  type SdOptions,
  type SdVersion,
  type Timing,
  TYPICAL_EMMC,
  TYPICAL_SD,
} from "./core/profile.js";
export type { ArgumentClass, PanicDumpResult, PanicResult, RefusedCommand } from "./core/result.js";
export type { FtraceCall } from "./core/rings.js";
export {
  type BusyOperation,
  type CardState,
  type CardStatus,
  decodeCardStatus,
  formatNs,
  type ResponseType,
  type TraceEvent,
  type TraceKind,
} from "./core/trace.js";
export {
  type CacheOutcome,
  type CardRegisters,
  Device,
  type DeviceState,
  type InFlight,
  type PanicInput,
  type Reason,
} from "./device.js";
export type { DeviceOptions, PanicArea, PanicDumpOptions } from "./device-options.js";
export {
  type DeviceArea,
  DeviceRegions,
  type PanicWithSnapshots,
} from "./devlink/device-regions.js";
export {
  Devlink,
  type DevlinkChunk,
  type DevlinkReadOptions,
  type DevlinkRegion,
  type DevlinkRegionInfo,
  type DevlinkSnapshot,
  type DevlinkSource,
  type DevlinkState,
} from "./devlink/devlink.js";
export { DevlinkError } from "./devlink/error.js";
export { decodeStore, encodeStore, STORE_BYTES_MAX } from "./devlink/store.js";
export { type DevlinkStyle, formatChunks, formatNewSnapshot, formatRegions } from "./devlink/text.js";
export {
  DEVCOREDUMP_TIMEOUT_NS,
  Devcoredump,
  type DevcoredumpEnd,
  type DevcoredumpEntry,
  type DevcoredumpSource,
} from "./dump/devcoredump.js";
export {
  CrashDump,
  type DumpOptions,
  type DumpPlan,
  type Region,
  type RegionSource,
} from "./dump/dump.js";
export {
  bestDump,
  type CardDump,
  type CardDumpState,
  DUMP_AREA_BYTES_MIN,
  DUMP_HEADER_BYTES,
  decodeDumpArea,
  dumpAreaBytesOf,
  dumpBackOffset,
} from "./dump/dump-area.js";
export {
  bytesSource,
  type ElfCore,
  type ElfNote,
  type ElfSegment,
  type ElfSource,
  readElfCore,
} from "./dump/elf.js";
export type { FailedRange } from "./dump/failed-ranges.js";
export {
  type Minidump,
  type MinidumpOptions,
  type MinidumpRegion,
  type MinidumpRegionState,
  type MinidumpSubsystem,
  type MinidumpSubsystemState,
  minidumpTagName,
  readMinidump,
} from "./dump/minidump.js";
export { minidumpCore } from "./dump/minidump-core.js";
export {
  type DumpNote,
  machineOf,
  type NoteMachine,
  type PrPsInfo,
  type PrStatus,
  prPsInfoNote,
  prStatusNote,
  vmcoreinfoNote,
} from "./dump/notes.js";
export {
  type CoredumpMode,
  RemoteProc,
  type RemoteProcCoredump,
  type RemoteProcOptions,
  type RemoteProcState,
} from "./dump/remoteproc.js";
export {
  escapeName,
  regionFileName,
  type SaharaEntry,
  type SaharaWidth,
  saharaStatusName,
} from "./dump/sahara.js";
export {
  type SaharaAction,
  SaharaCollector,
  type SaharaCollectorOptions,
  type SaharaImage,
  type SaharaRegion,
  type SaharaRegionState,
  type SaharaResume,
} from "./dump/sahara-collector.js";
export {
  type Container,
  type ContainerRegion,
  type ContainerSource,
  makeContainerHead,
  readContainer,
} from "./dump/sahara-container.js";
export {
  SaharaDevice,
  type SaharaDeviceAction,
  type SaharaDeviceOptions,
  type SaharaFault,
  type SaharaMemory,
} from "./dump/sahara-device.js";
export { FrameReader, frameTransfer } from "./dump/sahara-frames.js";
export { OverlayMedium } from "./embed/overlay.js";
export { type GuestBus, type GuestTiming, SdhciPeripheral } from "./embed/peripheral.js";
export {
  PVPANIC_CRASH_LOADED,
  PVPANIC_PANICKED,
  PVPANIC_PCI,
  PVPANIC_PORT,
  PVPANIC_SHUTDOWN,
  Pvpanic,
  type PvpanicEvent,
} from "./embed/pvpanic.js";
export {
  findRamoops,
  newestRecord,
  type RamoopsEcc,
  type RamoopsOptions,
  type RamoopsRange,
  type RamoopsRecord,
  type RamoopsRegion,
  type RamoopsState,
  type RamoopsType,
  type RamoopsZone,
  readRamoops,
} from "./embed/ramoops.js";
export { RamoopsWatch } from "./embed/ramoops-watch.js";
export {
  type ConsoleEvent,
  type ConsoleEventKind,
  SerialConsole,
  type SerialConsoleOptions,
} from "./embed/serial-console.js";
export { SpiCard } from "./embed/spi.js";
export { attachV86, reloadOnReboot, type V86Attachment, type V86Options } from "./embed/v86.js";
export {
  attachV86WithPanics,
  type GuestRamoops,
  type HarvestedPanic,
  type PanicOptions,
} from "./embed/v86-panic.js";
export { ERRNO, type ErrorCode, MmcError } from "./errors.js";
export {
  type Abi,
  type Decoded,
  decodeArea,
  findGeometry,
  type Geometry,
  type GeometryOptions,
  type PstoreRecord,
  type RecordState,
  type ZoneInfo,
} from "./pstore/decode.js";
export { formatLog, type JoinedLog, joinLogs, type MissingText } from "./pstore/join.js";
export { parseRecordName, recordName } from "./pstore/names.js";
export { type AreaSizes, type RegisteredArea, registerArea } from "./pstore/registration.js";
export { decodeCid } from "./registers/cid.js";
export { type DecodedCsd, decodeCsd } from "./registers/csd.js";
export { decodeExtCsd, extCsdName } from "./registers/ext-csd.js";
export type { CrcState, DecodedRegister, RegisterField } from "./registers/field.js";
export { decodeScr } from "./registers/scr.js";
export { decodeSsr } from "./registers/ssr.js";
export { describeRefusal } from "./trace/refusal.js";
export { describeEvent, formatTrace } from "./trace/text.js";
export { formatVcd, type VcdOptions } from "./trace/vcd.js";
