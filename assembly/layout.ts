// The memory map of the core: every byte of its state lives at a fixed offset of the one linear memory.
// Plain numbers, no types of AssemblyScript, so that asc and tsc read the same file; the host uses it to
// fill CONFIG and FAULTS and to read RESULT and TRACE. Offsets below MEDIUM_BASE never move within a version.
//
//   0x00000  guard           0x00400  owner, clock     0x00480  CONFIG (host → core)
//   0x00600  FAULTS (host)   0x00800  RESULT, SPI      0x00900  card, controller, driver, pstore, registers
//   0x02000  write cache     0x10000  BOUNCE           0x20000  VERIFY
//   0x30000  zone states     0x38000  TRACE            0x40000  TEXT (1 MiB)      0x140000  medium

export const PAGE_BYTES = 0x10000;
export const SECTOR_BYTES = 512;

/** One 64-byte line of its own: epoch:24 | id:8. */
export const OWNER_WORD = 0x400;
/** u64, simulated nanoseconds since the machine was made. */
export const CLOCK_NOW = 0x440;
/** u64, how many sectors were ever stored on the medium: equal counts mean equal media. */
export const MEDIUM_STORES = 0x448;
/** u32, the code of the check that failed, written just before the core traps. */
export const FAILED_CHECK = 0x450;

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
export const CONFIG_SD_FLAGS = 0x4ec; // SD_*
export const CONFIG_SPI_KHZ = 0x4f0; // clock of the SPI port; 0: no time passes
export const CONFIG_SPI_NCR_BYTES = 0x4f4; // bytes between an SPI command and its response, 1 … 8
export const CONFIG_END = 0x4f8;

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
export const DRIVER_DMA = 1; // ADMA2 instead of PIO
export const DRIVER_CMD23 = 2; // predefined block counts where the card has them, else CMD12
export const ABI_LP64 = 0;
export const ABI_I386 = 1;
export const POLICY_FIRST_WINS = 0;
export const POLICY_RING = 1;

// What becomes of the sector that was in programming when the power went.
export const CUT_OLD = 0;
export const CUT_NEW = 1;
export const CUT_TORN_LOW = 2; // first half new, second half old
export const CUT_TORN_HIGH = 3; // second half new
// What becomes of sectors in the volatile cache.
export const CACHE_LOST = 0;
export const CACHE_KEPT = 1;
export const CACHE_SUBSET = 2; // bit i of the mask decides about the i-th oldest

// FAULTS: a plan of FAULTS_MAX entries of FAULT_BYTES, read at every command and block. docs/FAULTS.md
export const FAULTS_BASE = 0x600;
export const FAULTS_MAX = 16;
export const FAULT_BYTES = 32;
export const FAULT_KIND = 0; // FAULT_*, 0 = entry not used
export const FAULT_COMMAND = 4; // command index, or FAULT_ANY
export const FAULT_SKIP = 8; // how many matches pass before it strikes
export const FAULT_TIMES = 12; // how many times it strikes; FAULT_ANY = for ever
export const FAULT_FIRST_LBA = 16; // block faults: first sector concerned
export const FAULT_LAST_LBA = 20; // last sector concerned
export const FAULT_LEVEL = 24; // FAULT_STUCK_BUSY: what frees the card, STUCK_*
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
export const RESULT_STORED_BYTES = 0x818; // payload on the medium
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
export const RESULT_BYTES = 0x50;

export const STEP_NONE = 0;
export const STEP_TAKE_HOST = 1;
export const STEP_QUIET_CONTROLLER = 2;
export const STEP_TAKE_CARD = 3;
export const STEP_CHOOSE_ZONE = 4;
export const STEP_INVALIDATE = 5;
export const STEP_WRITE_BODY = 6;
export const STEP_COMMIT = 7;
export const STEP_VERIFY = 8;
export const STEP_DONE = 9;

// Private state, each struct a view in the file that owns it.
export const SPI_BASE = 0x880; // … 0x8ff
export const CARD_BASE = 0x900; // … 0xbff
export const SDHCI_REGISTERS = 0xc00; // 256 bytes as a driver sees them
export const SDHCI_BASE = 0xd00; // … 0xdff
export const DRIVER_BASE = 0xe00; // … 0xfff
export const PSTORE_BASE = 0x1000; // … 0x11ff
export const EXT_CSD_BASE = 0x1200; // 512 bytes; SD: SSR (64), SCR (8), write-protected groups
export const CARD_BLOCK = 0x1400; // 512, the block on its way out of the card
export const PROGRAM_BLOCK = 0x1600; // 512, the sector being programmed or cached
export const SDHCI_BUFFER = 0x1800; // 512, the controller's block buffer
export const CRC_TABLE = 0x1a00; // 256 × u32
export const ADMA_TABLE = 0x1e00; // descriptors of the driver
export const CACHE_LBAS = 0x2000; // CACHE_SECTORS_MAX × u32 (lba) …
export const CACHE_PARTITIONS = 0x2100; // … and × u32 (partition)
export const CACHE_DATA = 0x2200;
export const CACHE_SECTORS_MAX = 64;
export const HEAD_BLOCK = 0xa400; // 512, scratch of the panic path: a zone's first sector
export const TAIL_BLOCK = 0xa600; // 512, scratch: a zone's last sector
export const REGISTER_BLOCK = 0xa800; // 512, what CMD8, ACMD51, CMD6 returned

export const BOUNCE_BASE = 0x10000;
export const BOUNCE_SECTORS = 128;
export const VERIFY_BASE = 0x20000;
export const ZONE_STATES = 0x30000; // one byte a zone
export const ZONES_MAX = 0x8000; // 128 MiB of 4 KiB zones: what Linux can have

// TRACE: a ring of TRACE_ENTRIES entries of 32 bytes behind a 32-byte head (u32 count of all entries ever).
export const TRACE_BASE = 0x38000;
export const TRACE_HEAD_BYTES = 32;
export const TRACE_ENTRY_BYTES = 32;
export const TRACE_ENTRIES = 1023;
export const TRACE_COMMAND = 1; // a: index, b: argument
export const TRACE_RESPONSE = 2; // a: index, b: R1 or first word, c: kind
export const TRACE_NO_RESPONSE = 3; // a: index
export const TRACE_BLOCK_READ = 4; // a: bytes, b: lba
export const TRACE_BLOCK_WRITE = 5; // a: bytes, b: lba, c: CRC status
export const TRACE_BUSY_END = 6; // a: what it did
export const TRACE_TRANSFER_COMPLETE = 7;
export const TRACE_ERROR = 8; // a: SDHCI error bits
export const TRACE_RESET = 9; // a: SDHCI_SOFTWARE_RESET bits
export const TRACE_POWER = 10; // a: 0 off, 1 on
export const TRACE_STEP = 11; // a: STEP_*, b: detail

export const TEXT_BASE = 0x40000;
export const TEXT_BYTES_MAX = 0x100000;
export const MEDIUM_BASE = 0x140000;
/** Pages without a medium: what every module declares as its initial memory. */
export const MACHINE_PAGES = 20;
