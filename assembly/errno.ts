// Linux errno values, negative as the kernel returns them (include/uapi/asm-generic/errno*.h).
export const OK: i32 = 0;
export const EIO: i32 = -5;
export const EBUSY: i32 = -16;
export const ENODEV: i32 = -19;
export const EINVAL: i32 = -22;
export const ENOSPC: i32 = -28;
export const ENOMSG: i32 = -42;
export const EILSEQ: i32 = -84;
export const EOPNOTSUPP: i32 = -95;
export const ETIMEDOUT: i32 = -110;
export const ENOMEDIUM: i32 = -123;
