// Which bits of EXT_CSD's modes segment a host can write, and what makes them 0 again: the write types of JESD84-B51
// §7.4 for the features that this card has. A bit that stands nowhere here is read-only for CMD6, be it that the
// standard has it so (as the packed status, 35 and 36) or that its feature is absent.
//
// Not modelled, thus read-only: SECURE_REMOVAL_TYPE, production state awareness (17-25, 133), FFU (29, 30),
// BARRIER_CTRL (31), partitioning at run time (52, 53, 136-156: the card comes
// partitioned, CONFIG_GP*), USE_NATIVE_SECTOR (62), vendor bytes (64-127), TCASE_SUPPORT (132),
// SEC_BAD_BLK_MGMNT (134), WR_REL_SET (167: all partitions are protected), FW_CONFIG (169), enhanced strobe,
// power classes.

import {
  CONTEXTS,
  EXT_CSD_BKOPS_EN,
  EXT_CSD_BKOPS_START,
  EXT_CSD_BOOT_BUS_CONDITIONS,
  EXT_CSD_BOOT_CONFIG_PROT,
  EXT_CSD_BOOT_WP,
  EXT_CSD_BUS_WIDTH,
  EXT_CSD_CACHE_CTRL,
  EXT_CSD_CMD_SET,
  EXT_CSD_CONTEXT_CONF,
  EXT_CSD_ERASE_GROUP_DEF,
  EXT_CSD_EXCEPTION_EVENTS_CTRL,
  EXT_CSD_FLUSH_CACHE,
  EXT_CSD_HPI_MGMT,
  EXT_CSD_HS_TIMING,
  EXT_CSD_PARTITION_CONFIG,
  EXT_CSD_PERIODIC_WAKEUP,
  EXT_CSD_POWER_OFF_NOTIFICATION,
  EXT_CSD_RST_N_FUNCTION,
  EXT_CSD_SANITIZE_START,
  EXT_CSD_USER_WP,
  extCsd,
  setExtCsd,
} from "./emmc-registers";

/** R/W: set once, for ever. */
export function onceBits(index: u32): u32 {
  switch (index) {
    case EXT_CSD_RST_N_FUNCTION:
      return 0x03;
    case EXT_CSD_BKOPS_EN:
      return 0x01; // MANUAL_EN
    case EXT_CSD_USER_WP:
      return 0xd0; // PERM_PSWD_DIS, CD_PERM_WP_DIS, US_PERM_WP_DIS
    case EXT_CSD_BOOT_WP:
      return 0x14; // B_PERM_WP_DIS, B_PERM_WP_EN
    case EXT_CSD_BOOT_CONFIG_PROT:
      return 0x10; // PERM_BOOT_CONFIG_PROT
    default:
      return 0;
  }
}

/** R/W/C_P: set once, until the power goes or RST_n comes. */
export function oncePerPowerBits(index: u32): u32 {
  switch (index) {
    case EXT_CSD_USER_WP:
      return 0x08; // US_PWR_WP_DIS
    case EXT_CSD_BOOT_WP:
      return 0xcb; // B_SEC_WP_SEL, B_PWR_WP_DIS, B_PERM_WP_SEC_SEL, B_PWR_WP_SEC_SEL, B_PWR_WP_EN
    case EXT_CSD_BOOT_CONFIG_PROT:
      return 0x01; // PWR_BOOT_CONFIG_PROT
    default:
      return 0;
  }
}

/** R/W/E: written at will, and kept. */
export function keptBits(index: u32): u32 {
  switch (index) {
    case EXT_CSD_PERIODIC_WAKEUP:
      return 0xff;
    case EXT_CSD_BKOPS_EN:
      return 0x02; // AUTO_EN
    case EXT_CSD_BOOT_BUS_CONDITIONS:
      return 0x1f;
    case EXT_CSD_PARTITION_CONFIG:
      return 0x78; // BOOT_ACK, BOOT_PARTITION_ENABLE
    default:
      return 0;
  }
}

/** R/W/E_P and W/E_P: written at will; 0 after power, RST_n and CMD0. */
export function volatileBits(index: u32): u32 {
  if (index >= EXT_CSD_CONTEXT_CONF && index < EXT_CSD_CONTEXT_CONF + CONTEXTS) return 0xff;
  switch (index) {
    case EXT_CSD_FLUSH_CACHE:
    case EXT_CSD_CACHE_CTRL:
    case EXT_CSD_HPI_MGMT:
    case EXT_CSD_SANITIZE_START:
    case EXT_CSD_BKOPS_START:
    case EXT_CSD_BUS_WIDTH:
    case EXT_CSD_HS_TIMING:
    case EXT_CSD_POWER_OFF_NOTIFICATION:
      return 0xff; // what they take, switchAllowed() says
    case EXT_CSD_EXCEPTION_EVENTS_CTRL:
      return 0x1e; // DYNCAP_NEEDED, SYSPOOL_EXHAUSTED, PACKED_FAILURE, EXTENDED_SECURITY_FAILURE
    case EXT_CSD_USER_WP:
      return 0x05; // US_PERM_WP_EN, US_PWR_WP_EN
    case EXT_CSD_ERASE_GROUP_DEF:
      return 0x01;
    case EXT_CSD_PARTITION_CONFIG:
      return 0x07; // PARTITION_ACCESS
    default:
      return 0;
  }
}

/** CMD0: what is volatile. With `power` (power-up, RST_n) also what is set once per power. */
export function resetExtCsd(power: bool): void {
  for (let index: u32 = 0; index <= EXT_CSD_CMD_SET; index++) {
    const cleared = volatileBits(index) | (power ? oncePerPowerBits(index) : 0);
    if (cleared != 0) setExtCsd(index, extCsd(index) & ~cleared);
  }
}
