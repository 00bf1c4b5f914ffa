// mmcpstore: the public API for browsers and Node. Nothing of Node in its imports; files are in mmcpstore/node.

export type { FaultKind, FaultPlan } from "./core/faults.js";
export {
  type CardKind,
  type CutOutcome,
  IDEAL,
  type Policy,
  type SdOptions,
  type SdVersion,
  type Timing,
  TYPICAL_EMMC,
  TYPICAL_SD,
} from "./core/profile.js";
export type { PanicResult } from "./core/result.js";
export { formatNs, formatTrace, type TraceEvent } from "./core/trace.js";
export {
  type CacheOutcome,
  Device,
  type DeviceOptions,
  type DeviceState,
  type ExternalMedium,
  type InFlight,
  type PanicArea,
  type PanicInput,
  type Reason,
} from "./device.js";
export { SpiCard } from "./embed/spi.js";
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
export { parseRecordName, recordName } from "./pstore/names.js";
