// The two types of WebAssembly that the public API names, for programs that are compiled without lib "dom", as most
// of Node's are: TypeScript knows WebAssembly from there alone, and what it does not know becomes `any` under
// skipLibCheck. Where something else declares WebAssembly (lib "dom" or "webworker", Deno, Bun), nothing is added to
// it. Types only.

declare const brand: unique symbol;

/** True where WebAssembly is declared as a value: then its types are declared with it. */
type IsDeclared = typeof globalThis extends { WebAssembly: unknown } ? true : false;

interface OpaqueModule {
  readonly [brand]: "WebAssembly.Module";
}

interface PlainMemory {
  readonly buffer: ArrayBuffer;
  /** @returns the size before, in pages of 64 KiB */
  grow(delta: number): number;
}

// Interfaces can extend a conditional type only by a name of its own.
type ModuleBase = IsDeclared extends true ? object : OpaqueModule;
type MemoryBase = IsDeclared extends true ? object : PlainMemory;

declare global {
  namespace WebAssembly {
    interface Module extends ModuleBase {}
    interface Memory extends MemoryBase {}
  }
}
