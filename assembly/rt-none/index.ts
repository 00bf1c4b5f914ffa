// A runtime of compile errors: whatever would allocate does not compile.
// @ts-nocheck
@unsafe @global function __alloc(size: usize): usize {
  ERROR("allocation is forbidden in the core");
  return 0;
}
@unsafe @global function __realloc(ptr: usize, size: usize): usize {
  ERROR("allocation is forbidden in the core");
  return 0;
}
@unsafe @global function __free(ptr: usize): void {
  ERROR("allocation is forbidden in the core");
}
@unsafe @global function __new(size: usize, id: u32): usize {
  ERROR("managed allocation is forbidden in the core");
  return 0;
}
@unsafe @global function __renew(ptr: usize, size: usize): usize {
  ERROR("managed allocation is forbidden in the core");
  return 0;
}
@unsafe @global function __link(parent: usize, child: usize, expectMultiple: bool): void {}
@unsafe @global function __pin(ptr: usize): usize {
  return ptr;
}
@unsafe @global function __unpin(ptr: usize): void {}
@unsafe @global function __visit(ptr: usize, cookie: u32): void {}
@unsafe @global function __collect(): void {}
