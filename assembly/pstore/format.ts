// Numbers of the medium's format: docs/FORMAT.md (Linux's fs/pstore/zone.c, and our seal).

export const PSZ_SIG_KMSG: u32 = 0x43474244;
export const PSZ_SIG_CONSOLE: u32 = 0x43474246;
export const PSZ_SIG_FTRACE: u32 = 0x43474247;
export const PSZ_SIG_PMSG: u32 = 0x43474243;
export const PSTORE_KMSG_HEADER_MAGIC: u32 = 0x4dfc3ae5;
/** psz_buffer: sig, datalen, start. */
export const PSZ_BUFFER_BYTES: u32 = 12;
export const KMSG_HEADER_LP64_BYTES: u32 = 40;
export const KMSG_HEADER_I386_BYTES: u32 = 28;
export const REASON_PANIC: u32 = 1;
export const REASON_OOPS: u32 = 2;
export const SEAL_BYTES: u32 = 64;
export const SEAL_MAGIC: u32 = 0x53434d4d;
export const SEAL_VERSION: u32 = 1;

/** What the core knows of a zone without reading its payload. */
export const ZONE_EMPTY: u32 = 0;
export const ZONE_ERASED: u32 = 1;
export const ZONE_TORN: u32 = 2; // header and seal disagree, a length that cannot be, or half a header
export const ZONE_USED: u32 = 3; // a record that nobody has removed yet
export const ZONE_BAD: u32 = 4; // the medium refused it
export const ZONE_PART: u32 = 5; // used, by a further part of a log whose newest text is in another zone
export const ZONE_UNKNOWN: u32 = 6; // it could not be read: neither free, nor known to hold anything
/** Linux prints a count as a signed number. What is above is no count, and the last one is given for ever. */
export const COUNT_MAX: u32 = 0x7fffffff;
/** The year 36812: a time beyond is no time that orders records. */
export const TIME_SEC_MAX: i64 = 1 << 40;
