// The memory map of the core: every byte of its state lives at a fixed offset of the one linear memory.
// Plain numbers, no types of AssemblyScript, so that asc and tsc read the same file; the host uses it to
// fill CONFIG and FAULTS and to read RESULT and TRACE. Offsets below MEDIUM_BASE never move within a version.
//
//   0x00000  guard           0x00400  owner, clock     0x00480  CONFIG (host → core)
//   0x00600  FAULTS (host)   0x00800  RESULT, SPI      0x00900  card, controller, pstore, registers
//   0x02000  write cache     0x0a200  DUMP, 0xb600     0x0c000  protection       0x10000  BOUNCE
//   0x20000  VERIFY          0x30000  zone states     0x38000  TRACE            0x40000  TEXT (1 MiB)
//   0x140000 deflate         0x1d0000 ring states      0x1e0000 rings            0x260000 zone logs
//   0x2a0000 RING_INBOX      0x2b0000 the panic's own  0x2c1000 driver          0x2d0000 rings, as on the medium
//   0x350000 medium

export const PAGE_BYTES = 0x10000;
export const SECTOR_BYTES = 512;

/** One 64-byte line of its own: epoch:24 | id:8. */
export const OWNER_WORD = 0x400;
/** Working copies of what the driver knows, one for each panic in turn: a power of two. */
export const OWNER_COPIES = 16;
/** u64, simulated nanoseconds since the machine was made. */
export const CLOCK_NOW = 0x440;
/** u64, how many sectors were ever stored on the medium: equal counts mean equal media. */
export const MEDIUM_STORES = 0x448;
/** u32, the code of the check that failed, written just before the core traps. */
export const FAILED_CHECK = 0x450;
/** What a guest's machine asks for behind each of its calls: u32, the interrupt line … */
export const GUEST_IRQ = 0x454;
/** … and u64, when the controller or the card does something by itself next; all ones: never. */
export const GUEST_NEXT_NS = 0x458;

// Words of the host's own that are part of a saved state; the core clears them in machineInit() and reads none.
export const HOST_POWERED = 0x460; // u32, 0 = the device is off, 1 = switched on, 2 = and its card identified since
export const HOST_FTRACE_CALLS = 0x468; // u64, the ftrace rings' clock

// CONFIG: u32 words, written by the host before machineInit().
export const CONFIG_BASE = 0x480;
export const CONFIG_CARD_KIND = 0x480; // CARD_*
export const CONFIG_SECTORS = 0x484; // user area, in sectors of 512 bytes
export const CONFIG_BOOT_SECTORS = 0x488; // each eMMC boot partition; a multiple of 256 (BOOT_SIZE_MULT is 128 KiB)
export const CONFIG_CACHE_SECTORS = 0x48c; // 0 (no cache) … CACHE_SECTORS_MAX
export const CONFIG_FEATURES = 0x490; // FEATURE_*
export const CONFIG_SERIAL = 0x494; // CID PSN
export const CONFIG_ACCESS_COST_NS = 0x498; // one register access
export const CONFIG_READ_NS = 0x49c; // from the command to the first block (N_AC; at least 2 clocks)
export const CONFIG_PROGRAM_NS = 0x4a0; // one sector into the flash
export const CONFIG_CACHED_NS = 0x4a4; // one sector into the write cache
export const CONFIG_ERASE_NS = 0x4a8; // one erase group, or one trim
export const CONFIG_SWITCH_NS = 0x4ac; // CMD6
export const CONFIG_INIT_NS = 0x4b0; // CMD1 or ACMD41 until ready
export const CONFIG_SLEEP_NS = 0x4b4; // CMD5, each way
export const CONFIG_HPI_NS = 0x4b8; // HPI until tran
export const CONFIG_ABORT_OUTCOME = 0x4bc; // CUT_*: the sector in programming when CMD0, HPI or a power cycle hits
export const CONFIG_CACHE_AT_RESET = 0x4c0; // CMD0 with a filled cache: 0 dropped, 1 written back
export const CONFIG_DRIVER_FLAGS = 0x4c4; // DRIVER_*
export const CONFIG_BUS_WIDTH = 0x4c8; // 1, 4, 8: what the driver asks for
export const CONFIG_HIGH_SPEED = 0x4cc; // 0 legacy/default speed, 1 high speed
export const CONFIG_AREA_FIRST_LBA = 0x4d0; // where zone 0 begins, in sectors
export const CONFIG_ZONE_SECTORS = 0x4d4; // kmsg zone size in sectors, 2 …
export const CONFIG_ZONE_COUNT = 0x4d8; // 0 … ZONES_MAX
export const CONFIG_ABI = 0x4dc; // ABI_*
export const CONFIG_POLICY = 0x4e0; // POLICY_*
export const CONFIG_DEADLINE_US = 0x4e4; // of a panic write, simulated microseconds
export const CONFIG_TRACE = 0x4e8; // 0 off, 1 on
// Times of the chip beyond the simple ones, 0 where it has nothing of the kind (host/core/profile.ts).
export const CONFIG_NEXT_READ_NS = 0x4ec; // each further block of a read
export const CONFIG_FINAL_NS = 0x4f0; // on top of the last block of a write: what was buffered goes to the flash
export const CONFIG_ERASE_CALL_NS = 0x4f4; // each CMD38, whatever it erases
export const CONFIG_TRIM_NS = 0x4f8; // CMD38 1 of an eMMC, for each erase group that is touched
export const CONFIG_DISCARD_NS = 0x4fc; // discard, likewise
export const CONFIG_PARTITION_NS = 0x500; // CMD6 on PARTITION_CONFIG
export const CONFIG_STALL_NS = 0x504; // how much longer a stalled program operation takes
export const CONFIG_STALL_EVERY = 0x508; // every n-th program operation stalls; 0 = none
export const CONFIG_BUSY_MAX_NS = 0x50c; // no stall makes a busy longer than this
export const CONFIG_SETTLE_NS = 0x510; // how long a sector stays in flight after its busy has ended
// What a power cut damages besides the sector in programming (docs/FAULTS.md).
export const CONFIG_SEED = 0x514; // of stalls and noise
export const CONFIG_NEIGHBOUR_SECTORS = 0x518; // on each side, 0 … NEIGHBOURS_MAX
export const CONFIG_UNIT_SECTORS = 0x51c; // neighbours are lost within this allocation unit only; 0 = no bounds
export const CONFIG_ROLLBACK_SECTORS = 0x520; // erase block that CUT_ROLLBACK takes back; 0 = none
export const CONFIG_CAPABILITIES = 0x524; // SDHCI_CAPABILITIES: what the controller has
export const CONFIG_CAPABILITIES_1 = 0x528; // … its upper word
export const CONFIG_HOST_VERSION = 0x52c; // SDHCI_HOST_VERSION
export const CONFIG_SLOT = 0x530; // SLOT_*
// What only an eMMC has.
export const CONFIG_EMMC_FLAGS = 0x534; // EMMC_*
export const CONFIG_DEVICE_TYPE = 0x538; // EXT_CSD_DEVICE_TYPE
export const CONFIG_BKOPS_SECTORS = 0x53c; // sectors programmed for each level of EXT_CSD_BKOPS_STATUS; 0 = none
export const CONFIG_BKOPS_NS = 0x540; // background operations, each level; sanitize
export const CONFIG_GP1_SECTORS = 0x544; // general purpose partitions, in sectors: multiples of GP_GRANULE_SECTORS
export const CONFIG_GP2_SECTORS = 0x548;
export const CONFIG_GP3_SECTORS = 0x54c;
export const CONFIG_GP4_SECTORS = 0x550;
// What only an SD card has.
export const CONFIG_SD_FLAGS = 0x554; // SD_*
export const CONFIG_SPI_KHZ = 0x558; // clock of the SPI port; 0: no time passes
export const CONFIG_SPI_NCR_BYTES = 0x55c; // bytes between an SPI command and its response, 1 … 8
// Compression of records.
export const CONFIG_COMPRESS = 0x5c0; // 0 plain, 1 deflate
export const CONFIG_DEFLATE_NS = 0x5c4; // CPU time of deflating one byte of text
// The rings in front of the kmsg zones, in the order of the medium; a size of 0: there is none.
export const CONFIG_RINGS_FIRST_LBA = 0x5e0; // where the pmsg ring begins, in sectors
export const CONFIG_PMSG_SECTORS = 0x5e4;
export const CONFIG_CONSOLE_SECTORS = 0x5e8;
export const CONFIG_FTRACE_SECTORS = 0x5ec; // of one CPU
export const CONFIG_FTRACE_CPUS = 0x5f0; // 0 … FTRACE_CPUS_MAX
// What a dump may cost (assembly/pstore/zone.ts, assembly/panic.ts).
export const CONFIG_MAX_REASON = 0x5f4; // a dump whose reason is larger is not taken
export const CONFIG_PARTS = 0x5f8; // 1: the newest text as it is; more: up to so many zones for one log, … PARTS_MAX
export const CONFIG_KEEP = 0x5fc; // POLICY_NEWEST: logs that are kept, the one being written too; 1 …
export const CONFIG_END = 0x600;

export const CARD_EMMC = 0;
export const CARD_SDHC = 1;
export const CARD_SDSC = 2; // byte addresses, CSD version 1.0, up to 2 GiB
export const CARD_SDXC = 3;
export const SD_VERSION_MASK = 3; // Physical Layer version: SD_V301 and its older ones
export const SD_V301 = 0;
export const SD_V200 = 1;
export const SD_V110 = 2; // no CMD8
export const SD_V101 = 3; // no CMD8, no CMD6
export const SD_UHS = 4; // 1.8 V: CMD11, CMD19, SDR50, SDR104, DDR50
export const SD_CMD20 = 8; // SCR CMD_SUPPORT bit 0
export const SD_DISCARD = 16; // SSR bit 313
export const SD_FULE = 32; // SSR bit 312
export const SD_ERASED_ONES = 64; // SCR DATA_STAT_AFTER_ERASE: erased bytes are 0xff
export const SD_LOCK_SWITCH = 128; // the write-protect switch of the case is in its lock position
export const SD_DRIVER_TYPES = 256; // CMD6 group 3: types A, C, D besides B
export const SD_CURRENTS = 512; // CMD6 group 4: 400, 600, 800 mA besides 200
export const FEATURE_RELIABLE_WRITE = 1; // EXT_CSD_WR_REL_PARAM bit 2
export const FEATURE_CMD23 = 2; // SD: SCR CMD_SUPPORT bit 1 (an eMMC always has it)
export const FEATURE_HPI = 4; // EXT_CSD_HPI_FEATURES bit 0
export const EMMC_BYTE_ADDRESSED = 1; // commands carry byte addresses: cards up to 2 GiB
/** A GP partition's size is counted in write protection groups: 16 erase groups of 512 KiB. */
export const GP_GRANULE_SECTORS = 16384;
export const DRIVER_DMA = 1; // ADMA2 instead of PIO
export const DRIVER_CMD23 = 2; // predefined block counts where the card has them, else CMD12
export const SLOT_WRITE_PROTECTED = 1; // the slot's write protect pin
export const SLOT_FIXED_SUPPLY = 2; // the card's supply stays on once it is, whatever SDHCI_POWER_CONTROL says
export const ABI_LP64 = 0;
export const ABI_I386 = 1;
export const POLICY_FIRST_WINS = 0;
export const POLICY_RING = 1;
export const POLICY_NEWEST = 2;
/** A megabyte of text in zones of 1 KiB needs 1155. */
export const PARTS_MAX = 1200;

// What becomes of the sector that was in programming when the power went.
export const CUT_OLD = 0;
export const CUT_NEW = 1;
export const CUT_TORN_LOW = 2; // first half new, second half old
export const CUT_TORN_HIGH = 3; // second half new
export const CUT_INTERLEAVED = 4; // every second 32-bit word new
export const CUT_ZERO = 5; // all zero
export const CUT_ONES = 6; // all 0xff
export const CUT_NOISE = 7; // bytes that never were there, from CONFIG_SEED
export const CUT_UNREADABLE = 8; // ECC cannot correct it until it is written again
export const CUT_ROLLBACK = 9; // old, and so are the sectors of its erase block that were written shortly before
// What becomes of sectors in the volatile cache.
export const CACHE_LOST = 0;
export const CACHE_KEPT = 1;
export const CACHE_SUBSET = 2; // bit i of the mask decides about the i-th oldest

// FAULTS: a plan of FAULTS_MAX entries of FAULT_BYTES, read at every command and block. docs/FAULTS.md
export const FAULTS_COUNT = 0x464; // u32, entries that are in use, or were: none behind them is looked at
export const FAULTS_BASE = 0x600;
export const FAULTS_MAX = 16;
export const FAULT_BYTES = 32;
export const FAULT_KIND = 0; // FAULT_*, 0 = entry not used
export const FAULT_COMMAND = 4; // command index, or FAULT_ANY
export const FAULT_SKIP = 8; // how many matches pass before it strikes
export const FAULT_TIMES = 12; // how many times it strikes; FAULT_ANY = for ever
export const FAULT_FIRST_LBA = 16; // block faults: first sector concerned
export const FAULT_LAST_LBA = 20; // last sector concerned
export const FAULT_LEVEL = 24; // by kind: what frees the card (STUCK_*), a time, a sector, bits of R1
export const FAULT_SEEN = 28; // matches so far; the core counts here
export const FAULT_ANY = -1;
export const FAULT_NONE = 0;
export const FAULT_NO_RESPONSE = 1;
export const FAULT_COMMAND_CRC = 2;
export const FAULT_RESPONSE_CRC = 3;
export const FAULT_READ_CRC = 4;
export const FAULT_READ_ECC = 5;
export const FAULT_READ_SILENT = 6;
export const FAULT_WRITE_CRC = 7;
export const FAULT_PROGRAM = 8;
export const FAULT_STUCK_BUSY = 9;
export const FAULT_PHANTOM_WRITE = 10;
export const FAULT_PULLED = 11;
export const FAULT_SWITCH = 12;
export const FAULT_BAD_AFTER_STOP = 13;
export const FAULT_VANISH = 14;
export const FAULT_LATE_BUSY = 15;
export const FAULT_LONG_BUSY = 16;
export const FAULT_LONG_R1B = 17;
export const FAULT_WRONG_INDEX = 18;
export const FAULT_SLOW_READ = 19;
export const FAULT_LOCKED = 20;
export const FAULT_CC_ERROR = 21;
export const FAULT_MISDIRECTED_WRITE = 22;
export const FAULT_LATENT_READ = 23;
export const FAULT_BIT_ROT = 24;
export const FAULT_DAT_STUCK = 25;
export const FAULT_DESELECT_BUSY = 26;
export const FAULT_WRITE_PROTECT = 27;
export const FAULT_SWAPPED = 28;
export const FAULT_BROWN_OUT = 29;
export const FAULT_REFUSED = 30;
export const FAULT_ILLEGAL = 31;
export const STUCK_UNTIL_HPI = 0;
export const STUCK_UNTIL_RESET = 1;
export const STUCK_UNTIL_POWER_CYCLE = 2;

// RESULT of the last panicWrite(), u32 words.
export const RESULT_BASE = 0x800;
export const RESULT_STATUS = 0x800; // 0 or a negative errno
export const RESULT_STEP = 0x804; // STEP_* reached
export const RESULT_ZONE = 0x808;
export const RESULT_COUNTER = 0x80c;
export const RESULT_SEQUENCE_LOW = 0x810;
export const RESULT_SEQUENCE_HIGH = 0x814;
export const RESULT_STORED_BYTES = 0x818; // of the text, in the record
export const RESULT_DROPPED_BYTES = 0x81c; // oldest bytes of the text that did not fit
export const RESULT_CARD_STATE = 0x820; // the first state that CMD13 told, or 0xff: no answer
export const RESULT_RUNG = 0x824; // highest rung of the takeover ladder used, 1 … 6
export const RESULT_ATTEMPTS = 0x828; // zones tried
export const RESULT_OWNER = 0x82c; // id that held the host, 0 = nobody: its request is lost
export const RESULT_START_NS_LOW = 0x830;
export const RESULT_START_NS_HIGH = 0x834;
export const RESULT_COMMIT_NS_LOW = 0x838; // header durable
export const RESULT_COMMIT_NS_HIGH = 0x83c;
export const RESULT_END_NS_LOW = 0x840;
export const RESULT_END_NS_HIGH = 0x844;
export const RESULT_COMMAND = 0x848; // index of the command that failed last, or 0xffffffff
export const RESULT_R1 = 0x84c; // its card status, if one came
export const RESULT_PAYLOAD_BYTES = 0x850; // the payload on the medium: deflated, or RESULT_STORED_BYTES
export const RESULT_COMPRESSED = 0x854; // 1: it is deflated
export const RESULT_RINGS_STATUS = 0x858; // 0, or the errno of the first ring that was not flushed
export const RESULT_RINGS_FLUSHED = 0x85c; // rings that had something new, and have it on the medium
export const RESULT_PARTS = 0x860; // parts written: 1, or more of a long log
export const RESULT_PARTS_STATUS = 0x864; // 0, or what kept the next part from being written
// The first command of the record's way that the card did not take; RESULT_COMMAND is the one sent last.
export const RESULT_REFUSED_COMMAND = 0x870; // its index, or 0xffffffff: none was refused
export const RESULT_REFUSED_ARGUMENT = 0x874;
export const RESULT_REFUSED_R1 = 0x878; // its card status; 0: none came
export const RESULT_REFUSED_STATUS = 0x87c; // 0: its R1 has error bits; else the errno in place of an answer
export const RESULT_BYTES = 0x80;

export const STEP_NONE = 0;
export const STEP_TAKE_HOST = 1;
export const STEP_QUIET_CONTROLLER = 2;
export const STEP_TAKE_CARD = 3;
export const STEP_COMPRESS = 4;
export const STEP_CHOOSE_ZONE = 5;
export const STEP_INVALIDATE = 6;
export const STEP_WRITE_BODY = 7;
export const STEP_COMMIT = 8;
export const STEP_VERIFY = 9;
export const STEP_DONE = 10;
export const STEP_FLUSH_RING = 11;
export const STEP_STORE_DUMP = 12;

// Private state, each struct a view in the file that owns it.
export const SPI_BASE = 0x880; // … 0x8ff
export const CARD_BASE = 0x900; // … 0xbff
export const SDHCI_REGISTERS = 0xc00; // 256 bytes as a driver sees them
export const SDHCI_BASE = 0xd00; // … 0xdff
export const PSTORE_BASE = 0x1000; // … 0x11ff
export const EXT_CSD_BASE = 0x1200; // 512 bytes; SD: SSR (64), SCR (8), write-protected groups
export const CARD_BLOCK = 0x1400; // 512, the block on its way out of the card
export const PROGRAM_BLOCK = 0x1600; // 512, the sector being programmed or cached
export const SDHCI_BUFFER = 0x1800; // 512, the controller's block buffer
export const CRC_TABLE = 0x1a00; // 256 × u32
export const ADMA_TABLE = 0x1e00; // descriptors of a normal owner
export const CACHE_LBAS = 0x2000; // CACHE_SECTORS_MAX × u32 (lba) …
export const CACHE_PARTITIONS = 0x2100; // … and × u32 (partition)
export const CACHE_DATA = 0x2200;
export const CACHE_SECTORS_MAX = 64;
export const HEAD_BLOCK = 0xa400; // 512, scratch of a normal owner: a zone's or a ring's first sector
export const TAIL_BLOCK = 0xa600; // 512, scratch: a zone's last sector
export const REGISTER_BLOCK = 0xa800; // 512, what CMD8, ACMD51, CMD6 returned
// What the card keeps beside its stored bytes: assembly/card/flash.ts.
export const DAMAGE_BASE = 0xb000; // … 0xb03f, survives a power-up
export const UNREADABLE_TABLE = 0xb100; // UNREADABLE_MAX × { u32 lba, u32 partition }
export const UNREADABLE_MAX = 64;
export const UNDO_HEADS = 0xb400; // UNDO_MAX × UNDO_HEAD_BYTES
export const UNDO_HEAD_BYTES = 32;
export const UNDO_MAX = 16;
export const UNDO_DATA = 0xe000; // UNDO_MAX × 512: what the sectors held before
export const NEIGHBOURS_MAX = 64;

// The wires between card and controller: the last block's CRCs and the last long response.
export const WIRE_BASE = 0xaa00; // … 0xadff
export const WIRE_CRC = WIRE_BASE + 0x0; // 16 bytes: the CRC16s of all lines, clock by clock
export const WIRE_LONG = WIRE_BASE + 0x10; // 16 bytes: the register of an R2
export const WIRE_BYTES = WIRE_BASE + 0x20; // u32, length of the block
export const WIRE_LINES = WIRE_BASE + 0x24; // u32, lines that its sender drove
export const WIRE_BROKEN = WIRE_BASE + 0x28; // u32, 1 = a bit of the block was turned over on its way
export const WIRE_BLOCK = WIRE_BASE + 0x200; // 512, scratch: a block as a receiver of another width sees it, and folded
export const PACKED_HEADER = 0xae00; // 512, an eMMC's: what a packed command consists of
export const PROTECTION_TABLE = 0xc000; // write protection of an eMMC: 2 bits a group
export const PROTECTION_GROUPS_MAX = 32768;

// DUMP: the regions that a crash dump is made of, and its plan (docs/DUMPS.md). The first words are the host's, filled
// before dumpInit(); the table of regions lies where it says, outside of everything else here.
export const DUMP_BASE = 0xa200; // … 0xa3ff
export const DUMP_WORK = DUMP_BASE + 0x0; // u32, table and notes: not below MEDIUM_BASE, a multiple of 8
export const DUMP_WORK_BYTES = DUMP_BASE + 0x4;
export const DUMP_CAPACITY = DUMP_BASE + 0x8; // regions, 1 … DUMP_SLOTS_MAX
export const DUMP_NOTE_BYTES = DUMP_BASE + 0xc; // room for notes, with their heads
export const DUMP_FLAGS = DUMP_BASE + 0x10; // DUMP_SEGMENTS …
export const DUMP_ALIGN = DUMP_BASE + 0x14; // addresses and sizes are multiples of it: a power of two
export const DUMP_CLASS = DUMP_BASE + 0x18; // EI_CLASS: 1 ELF32, 2 ELF64
export const DUMP_MACHINE = DUMP_BASE + 0x1c; // e_machine
export const DUMP_ENTRY = DUMP_BASE + 0x20; // u64, e_entry
export const DUMP_ELF_FLAGS = DUMP_BASE + 0x28; // e_flags
/** Why the last call was refused: REFUSED_*. */
export const DUMP_REFUSED = DUMP_BASE + 0x2c;
// What dumpExtent() tells of an offset.
export const DUMP_EXTENT_SLOT = DUMP_BASE + 0x30; // u32, slot of the region
export const DUMP_EXTENT_OFFSET = DUMP_BASE + 0x38; // u64, where in the region
export const DUMP_EXTENT_BYTES = DUMP_BASE + 0x40; // u64, until its end
// What dumpPlan() found.
export const DUMP_TOTAL_BYTES = DUMP_BASE + 0x48; // u64, of the whole file
export const DUMP_HEADER_BYTES = DUMP_BASE + 0x50; // u32, before the first region
export const DUMP_LIVE = DUMP_BASE + 0x54; // u32, regions in the plan
/** What dumpRegister() reads: the first 48 bytes of a slot. */
export const DUMP_REQUEST = DUMP_BASE + 0x60;
export const DUMP_STATE = DUMP_BASE + 0xc0; // … + 0x17f, the core's own
export const DUMP_SCRATCH = DUMP_BASE + 0x180; // 64, one header on its way out
export const DUMP_SLOT_BYTES = 80;
export const DUMP_SLOTS_MAX = 0x10000;
export const DUMP_NOTE_BYTES_MAX = 0x100000;
export const DUMP_SEGMENTS = 1; // program headers
export const DUMP_NOTES = 2; // PT_NOTE before them
export const DUMP_SECTIONS = 4; // section headers with the names
export const DUMP_REMOTEPROC = 8; // as Linux's remoteproc lays them out: no padding, RWX, sections not allocated
export const DUMP_OVERLAP = 16; // regions may overlap
// A slot, as a request and in the table.
export const SLOT_NAME = 0; // 16 bytes, NUL-terminated and NUL-padded
export const SLOT_ADDRESS = 16; // u64, physical
export const SLOT_VADDR = 24; // u64
export const SLOT_SIZE = 32; // u64
export const SLOT_SOURCE = 40; // u32, where its bytes lie in this memory, with REGION_MEMORY
export const SLOT_REGION_FLAGS = 44; // u32, p_flags | REGION_*
export const REGION_MEMORY = 0x100; // its bytes lie in this memory; otherwise the host brings them
export const REFUSED_NONE = 0;
export const REFUSED_NAME = 1;
export const REFUSED_SIZE = 2;
export const REFUSED_ALIGN = 3;
export const REFUSED_WRAP = 4;
export const REFUSED_CLASS = 5; // beyond what ELF32 can say
export const REFUSED_FLAGS = 6;
export const REFUSED_SOURCE = 7; // outside of this memory
export const REFUSED_OVERLAP = 8;
export const REFUSED_DUPLICATE = 9;
export const REFUSED_FULL = 10;
export const REFUSED_FROZEN = 11;
export const REFUSED_ID = 12;
export const REFUSED_SEGMENTS = 13; // more than e_phnum or e_shnum can say
export const REFUSED_BYTES = 14; // more than a file offset can say
export const REFUSED_EMPTY = 15;
export const REFUSED_CONFIG = 16;

// The dump area of the card, and what a panic made of it (assembly/panic-dump.ts).
export const DUMP_AREA_BASE = 0xb600; // … 0xbbff
export const DUMP_AREA_FIRST_LBA = DUMP_AREA_BASE + 0x0; // u32, by the host before machineInit(), as CONFIG
export const DUMP_AREA_SECTORS = DUMP_AREA_BASE + 0x4; // u32, 0: there is none; up to DUMP_AREA_SECTORS_MAX
/** 128 GiB: what 2^21 pieces of BOUNCE_SECTORS are. */
export const DUMP_AREA_SECTORS_MAX = 0x10000000;
export const DUMP_RESULT = DUMP_AREA_BASE + 0x10; // … + DUMP_RESULT_BYTES: of the last panicWrite()
export const DUMP_RESULT_STATUS = DUMP_RESULT + 0x0; // 0, or why the dump is not complete
export const DUMP_RESULT_STATE = DUMP_RESULT + 0x4; // DUMP_NONE …
export const DUMP_RESULT_SEQUENCE = DUMP_RESULT + 0x8; // u64
export const DUMP_RESULT_LENGTH_BYTES = DUMP_RESULT + 0x10; // u64, of the planned file
export const DUMP_RESULT_STORED_BYTES = DUMP_RESULT + 0x18; // u64, of it on the card
export const DUMP_RESULT_OFFSET = DUMP_RESULT + 0x20; // u64, of its first byte in the area
export const DUMP_RESULT_END_NS = DUMP_RESULT + 0x28; // u64, its header is durable; 0: it never was
export const DUMP_RESULT_BYTES = 0x30;
// What no source could bring, in the order of the file.
export const DUMP_FAILED = DUMP_AREA_BASE + 0x80;
export const DUMP_FAILED_RANGES = DUMP_FAILED + 0x0; // u32, also those behind the list's end
export const DUMP_FAILED_GONE = DUMP_FAILED + 0x4; // u32, 1 = of a region that the host knows no more: not complete
export const DUMP_FAILED_BYTES = DUMP_FAILED + 0x8; // u64
export const DUMP_FAILED_END = DUMP_FAILED + 0x10; // u64, of the last one
export const DUMP_FAILED_LIST = DUMP_FAILED + 0x18; // DUMP_FAILED_MAX × { u64 offset in the file, u64 bytes }
export const DUMP_FAILED_MAX = 24;
export const DUMP_STREAM = DUMP_AREA_BASE + 0x280; // … + 0x2ff, the core's own
export const DUMP_HEADER_BLOCK = 0xba00; // 512, the header as it is to be written
// State of a dump, in its header and in DUMP_RESULT_STATE.
export const DUMP_NONE = 0;
export const DUMP_BEGUN = 1;
export const DUMP_PARTIAL = 2;
export const DUMP_COMPLETE = 3;

/** A normal request's blocks. Whoever fills them claims the host first or is alone; a panic never looks at them. */
export const BOUNCE_BASE = 0x10000;
export const BOUNCE_SECTORS = 128;
export const VERIFY_BASE = 0x20000; // the panic's: what was read back
export const ZONE_STATES = 0x30000; // one byte a zone
export const ZONES_MAX = 0x8000; // 128 MiB of 4 KiB zones: what Linux can have

// TRACE: a ring of TRACE_ENTRIES entries of 32 bytes (u64 time in ns, u32 kind, u32 a … e) behind a 32-byte head: u32
// count of all entries ever, and from TRACE_LEVELS on 1 + the level last told of each kind from TRACE_CLOCK on.
export const TRACE_BASE = 0x38000;
export const TRACE_HEAD_BYTES = 32;
export const TRACE_ENTRY_BYTES = 32;
export const TRACE_ENTRIES = 1023;
export const TRACE_LEVELS = 8; // offset in the head
export const TRACE_COMMAND = 1; // a: index, b: argument, c: ns until its first bit, d: clock in kHz
export const TRACE_RESPONSE = 2; // a: index | RESPONSE_* << 8, b … e: words, bits 31:0 of the register first
export const TRACE_NO_RESPONSE = 3; // a: index
export const TRACE_BLOCK_READ = 4; // a: bytes, b: lba, 0xffffffff = a register, c: 1 = its CRC16 is wrong
export const TRACE_BLOCK_WRITE = 5; // a: bytes, b: lba, c: CRC status
export const TRACE_BUSY_END = 6; // a: OP_*, b: lba, c: 1 = cut short by CMD0 or by the supply
export const TRACE_TRANSFER_COMPLETE = 7;
export const TRACE_ERROR = 8; // a: SDHCI error bits
export const TRACE_RESET = 9; // a: SDHCI_SOFTWARE_RESET bits
export const TRACE_POWER = 10; // a: 0 off, 1 on
export const TRACE_STEP = 11; // a: STEP_*, b: detail
export const TRACE_BUSY_START = 12; // a: OP_*, b: lba
// Levels, told when they change: a: the new one.
export const TRACE_CLOCK = 13; // kHz, 0 = off
export const TRACE_WIDTH = 14; // the controller's data lines
export const TRACE_STATE = 15; // of the card, as R1 codes it; 11 = inactive

/** The panic's text: filled by whoever holds panicTake()'s token, by nobody else. */
export const TEXT_BASE = 0x40000;
export const TEXT_BYTES_MAX = 0x100000;
// Compression: work memory of assembly/pstore/deflate.ts and huffman.ts, and the stream.
export const DEFLATE_BASE = 0x140000; // state and codes, … 0x141bff
export const HUFFMAN_SCRATCH = 0x141c00; // … 0x1433ff
export const DEFLATE_HEADS = 0x144000; // u32 a hash: where it was met last
export const DEFLATE_LINKS = 0x146000; // u32 a byte of the window: where its hash was met before
export const DEFLATE_TOKENS = 0x148000; // u32 a literal or match of the block at hand
/** The stream: half of TEXT_BYTES_MAX, because a kernel's log deflates to some 35 %. */
export const DEFLATED_BASE = 0x150000;
export const DEFLATED_BYTES_MAX = 0x80000;
// The rings: a few words of state each, and their zones as the medium shall have them, one behind the other.
export const RING_STATES = 0x1d0000; // RINGS_MAX × RING_STATE_BYTES
export const RING_STATE_BYTES = 40;
export const FTRACE_CPUS_MAX = 64;
export const RINGS_MAX = 66; // pmsg, console, and an ftrace slice for each CPU
/** A page of a guest's memory that its DMA reads, fetched at once: assembly/sdhci/dma.ts. */
export const DMA_PAGE = 0x1d1000;
export const DMA_PAGE_BYTES = 0x1000;
/** Some of the ADMA2 descriptors behind the one at hand, fetched with it. */
export const DMA_TABLE = 0x1d2000;
export const DMA_TABLE_BYTES = 0x80;
export const RING_DATA = 0x1e0000;
export const RING_BYTES_MAX = 0x80000; // all rings together
export const ZONE_LOGS = 0x260000; // u64 a zone: the sequence of the newest part of its log, 0 without a seal
/** What writeRing() takes its bytes from. */
export const RING_INBOX = 0x2a0000;
export const RING_INBOX_BYTES = 0x10000;
// The panic's own, beside TEXT and VERIFY: no normal request, and no panic that was refused, stores here.
export const PANIC_BOUNCE = 0x2b0000; // BOUNCE_SECTORS sectors
export const PANIC_HEAD_BLOCK = 0x2c0000; // 512, scratch: a zone's or a ring's first sector
export const PANIC_TAIL_BLOCK = 0x2c0200; // 512, scratch: a zone's last sector
export const PANIC_REGISTER_BLOCK = 0x2c0400; // 512, what CMD8, ACMD51, CMD6 returned
export const PANIC_ADMA_TABLE = 0x2c0600; // descriptors
export const DRIVER_BASE = 0x2c1000; // OWNER_COPIES × SHADOW_BYTES: assembly/driver/shadow.ts
export const SHADOW_BYTES = 0x100;
/** The rings' zones as the medium has them, in the order of RING_DATA: what a flush has written, or is writing. */
export const RING_MEDIUM = 0x2d0000; // RING_BYTES_MAX
export const MEDIUM_BASE = 0x350000;
/** Pages without a medium: what every module declares as its initial memory. */
export const MACHINE_PAGES = 53;
