// Linux errno values, negative as the kernel returns them (include/uapi/asm-generic/errno*.h).
export const OK: i32 = 0;
export const ENOENT: i32 = -2;
export const EIO: i32 = -5;
export const EFAULT: i32 = -14;
export const EBUSY: i32 = -16;
export const EEXIST: i32 = -17;
export const ENODEV: i32 = -19;
export const EINVAL: i32 = -22;
export const EFBIG: i32 = -27;
export const ENOSPC: i32 = -28;
export const ENOMSG: i32 = -42;
export const ENODATA: i32 = -61;
export const EOVERFLOW: i32 = -75;
export const EILSEQ: i32 = -84;
export const EOPNOTSUPP: i32 = -95;
export const ETIMEDOUT: i32 = -110;
export const ENOMEDIUM: i32 = -123;
