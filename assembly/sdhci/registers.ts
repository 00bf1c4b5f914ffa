// SDHCI 3.0: register offsets, bits and the reset value of each byte (mmc.md §3.1, §3.2; SD Host Controller
// Simplified Specification 3.00). Names are those of Linux's headers, so that both can be searched together.

export const SDHCI_DMA_ADDRESS: u32 = 0x00;
export const SDHCI_ARGUMENT2: u32 = 0x00;
export const SDHCI_BLOCK_SIZE: u32 = 0x04;
export const SDHCI_BLOCK_COUNT: u32 = 0x06;
export const SDHCI_ARGUMENT: u32 = 0x08;
export const SDHCI_TRANSFER_MODE: u32 = 0x0c;
export const SDHCI_TRNS_DMA: u32 = 0x01;
export const SDHCI_TRNS_BLK_CNT_EN: u32 = 0x02;
export const SDHCI_TRNS_AUTO_MASK: u32 = 0x0c;
export const SDHCI_TRNS_AUTO_CMD12: u32 = 0x04;
export const SDHCI_TRNS_AUTO_CMD23: u32 = 0x08;
export const SDHCI_TRNS_READ: u32 = 0x10;
export const SDHCI_TRNS_MULTI: u32 = 0x20;
export const SDHCI_COMMAND: u32 = 0x0e;
export const SDHCI_CMD_RESP_MASK: u32 = 0x03;
export const SDHCI_CMD_RESP_NONE: u32 = 0x00;
export const SDHCI_CMD_RESP_LONG: u32 = 0x01;
export const SDHCI_CMD_RESP_SHORT: u32 = 0x02;
export const SDHCI_CMD_RESP_SHORT_BUSY: u32 = 0x03;
export const SDHCI_CMD_CRC: u32 = 0x08;
export const SDHCI_CMD_INDEX: u32 = 0x10;
export const SDHCI_CMD_DATA: u32 = 0x20;
export const SDHCI_CMD_TYPE_MASK: u32 = 0xc0;
export const SDHCI_CMD_ABORTCMD: u32 = 0xc0;
export const SDHCI_RESPONSE: u32 = 0x10;
/** Where the response of an auto command goes. */
export const SDHCI_RESPONSE_AUTO: u32 = 0x1c;
export const SDHCI_BUFFER_PORT: u32 = 0x20;
export const SDHCI_PRESENT_STATE: u32 = 0x24;
export const SDHCI_CMD_INHIBIT: u32 = 0x00000001;
export const SDHCI_DATA_INHIBIT: u32 = 0x00000002;
export const SDHCI_DAT_ACTIVE: u32 = 0x00000004;
export const SDHCI_DOING_WRITE: u32 = 0x00000100;
export const SDHCI_DOING_READ: u32 = 0x00000200;
export const SDHCI_SPACE_AVAILABLE: u32 = 0x00000400;
export const SDHCI_DATA_AVAILABLE: u32 = 0x00000800;
export const SDHCI_CARD_PRESENT: u32 = 0x00010000;
export const SDHCI_CARD_STABLE: u32 = 0x00020000;
export const SDHCI_CARD_DETECT_PIN: u32 = 0x00040000;
export const SDHCI_WRITE_ENABLED: u32 = 0x00080000;
export const SDHCI_DAT_0_LEVEL: u32 = 0x00100000;
export const SDHCI_DAT_123_LEVEL: u32 = 0x00e00000;
export const SDHCI_CMD_LEVEL: u32 = 0x01000000;
export const SDHCI_HOST_CONTROL: u32 = 0x28;
export const SDHCI_CTRL_4BITBUS: u32 = 0x02;
export const SDHCI_CTRL_HISPD: u32 = 0x04;
export const SDHCI_CTRL_DMA_MASK: u32 = 0x18;
export const SDHCI_CTRL_SDMA: u32 = 0x00;
export const SDHCI_CTRL_ADMA32: u32 = 0x10;
export const SDHCI_CTRL_8BITBUS: u32 = 0x20;
export const SDHCI_CTRL_CDTEST_INS: u32 = 0x40;
export const SDHCI_CTRL_CDTEST_EN: u32 = 0x80;
export const SDHCI_POWER_CONTROL: u32 = 0x29;
export const SDHCI_POWER_ON: u32 = 0x01;
export const SDHCI_POWER_MASK: u32 = 0x0e;
export const SDHCI_POWER_180: u32 = 0x0a;
export const SDHCI_POWER_300: u32 = 0x0c;
export const SDHCI_POWER_330: u32 = 0x0e;
export const SDHCI_BLOCK_GAP_CONTROL: u32 = 0x2a;
export const SDHCI_GAP_STOP: u32 = 0x01;
export const SDHCI_GAP_CONTINUE: u32 = 0x02;
export const SDHCI_WAKE_UP_CONTROL: u32 = 0x2b;
export const SDHCI_CLOCK_CONTROL: u32 = 0x2c;
export const SDHCI_CLOCK_INT_EN: u32 = 0x0001;
export const SDHCI_CLOCK_INT_STABLE: u32 = 0x0002;
export const SDHCI_CLOCK_CARD_EN: u32 = 0x0004;
export const SDHCI_TIMEOUT_CONTROL: u32 = 0x2e;
export const SDHCI_SOFTWARE_RESET: u32 = 0x2f;
export const SDHCI_RESET_ALL: u32 = 0x01;
export const SDHCI_RESET_CMD: u32 = 0x02;
export const SDHCI_RESET_DATA: u32 = 0x04;
export const SDHCI_INT_STATUS: u32 = 0x30;
export const SDHCI_INT_RESPONSE: u32 = 0x00000001;
export const SDHCI_INT_DATA_END: u32 = 0x00000002;
export const SDHCI_INT_BLK_GAP: u32 = 0x00000004;
export const SDHCI_INT_DMA_END: u32 = 0x00000008;
export const SDHCI_INT_SPACE_AVAIL: u32 = 0x00000010;
export const SDHCI_INT_DATA_AVAIL: u32 = 0x00000020;
export const SDHCI_INT_CARD_INSERT: u32 = 0x00000040;
export const SDHCI_INT_CARD_REMOVE: u32 = 0x00000080;
export const SDHCI_INT_ERROR: u32 = 0x00008000;
export const SDHCI_INT_TIMEOUT: u32 = 0x00010000;
export const SDHCI_INT_CRC: u32 = 0x00020000;
export const SDHCI_INT_END_BIT: u32 = 0x00040000;
export const SDHCI_INT_INDEX: u32 = 0x00080000;
export const SDHCI_INT_DATA_TIMEOUT: u32 = 0x00100000;
export const SDHCI_INT_DATA_CRC: u32 = 0x00200000;
export const SDHCI_INT_DATA_END_BIT: u32 = 0x00400000;
export const SDHCI_INT_AUTO_CMD_ERR: u32 = 0x01000000;
export const SDHCI_INT_ADMA_ERROR: u32 = 0x02000000;
export const SDHCI_INT_ENABLE: u32 = 0x34;
export const SDHCI_SIGNAL_ENABLE: u32 = 0x38;
export const SDHCI_ACMD12_ERR: u32 = 0x3c;
/** Of the auto commands: bits 1 … 4 are those of SDHCI_INT_STATUS 19:16. */
export const SDHCI_AUTO_NOT_EXECUTED: u32 = 0x01;
export const SDHCI_AUTO_NOT_ISSUED: u32 = 0x80;
export const SDHCI_AUTO_ERRORS: u32 = 0x1f;
export const SDHCI_HOST_CONTROL2: u32 = 0x3e;
export const SDHCI_CTRL_UHS_MASK: u32 = 0x0007;
export const SDHCI_CTRL_VDD_180: u32 = 0x0008;
export const SDHCI_CTRL_EXEC_TUNING: u32 = 0x0040;
export const SDHCI_CTRL_TUNED_CLK: u32 = 0x0080;
export const SDHCI_CTRL_PRESET_VAL_ENABLE: u32 = 0x8000;
export const SDHCI_CAPABILITIES: u32 = 0x40;
export const SDHCI_CAN_DO_8BIT: u32 = 0x00040000;
export const SDHCI_CAN_DO_ADMA2: u32 = 0x00080000;
export const SDHCI_CAN_DO_SDMA: u32 = 0x00400000;
export const SDHCI_CAN_VDD_330: u32 = 0x01000000;
export const SDHCI_CAN_VDD_300: u32 = 0x02000000;
export const SDHCI_CAN_VDD_180: u32 = 0x04000000;
export const SDHCI_CAPABILITIES_1: u32 = 0x44;
/** SDR50, SDR104, DDR50. */
export const SDHCI_CAN_UHS: u32 = 0x00000007;
export const SDHCI_MAX_CURRENT: u32 = 0x48;
export const SDHCI_SET_ACMD12_ERROR: u32 = 0x50;
export const SDHCI_SET_INT_ERROR: u32 = 0x52;
export const SDHCI_ADMA_ERROR: u32 = 0x54;
export const SDHCI_ADMA_ADDRESS: u32 = 0x58;
export const SDHCI_PRESET_INIT: u32 = 0x60;
export const SDHCI_PRESET_DEFAULT_SPEED: u32 = 0x62;
export const SDHCI_PRESET_HIGH_SPEED: u32 = 0x64;
export const SDHCI_PRESET_SDR12: u32 = 0x66;
export const SDHCI_SLOT_INT_STATUS: u32 = 0xfc;
export const SDHCI_HOST_VERSION: u32 = 0xfe;

/** SDHCI_HOST_VERSION 7:0 of specification 3.00: ten-bit divider, auto-CMD23, SDHCI_HOST_CONTROL2. */
export const SPECIFICATION_300: u32 = 2;

/**
 * Bits of each byte that software can write and read back; the rest is read-only, reserved or has an
 * effect of its own.
 */
export function writableBits(offset: u32): u32 {
  switch (offset) {
    case 0x00:
    case 0x01:
    case 0x02:
    case 0x03:
    case 0x04:
    case 0x06:
    case 0x07:
    case 0x08:
    case 0x09:
    case 0x0a:
    case 0x0b:
    case 0x58:
    case 0x59:
    case 0x5a:
    case 0x5b:
      return 0xff;
    case 0x05:
      return 0x7f;
    case 0x0c:
      return 0x3f;
    case 0x0e:
      return 0xfb;
    case 0x0f:
      return 0x3f;
    case 0x28:
      return 0xff;
    case 0x29:
      return 0x0f;
    case 0x2a:
      return 0x0f;
    case 0x2b:
    case 0x3e: // UHS mode select
      return 0x07;
    case 0x2c:
      return 0xe5;
    case 0x2d:
      return 0xff;
    case 0x2e:
      return 0x0f;
    case 0x34:
    case 0x38:
      return 0xff;
    case 0x35:
    case 0x39:
      return 0x01;
    case 0x36:
    case 0x3a:
      return 0xff;
    case 0x37:
    case 0x3b:
      return 0x07;
    default:
      return 0;
  }
}
