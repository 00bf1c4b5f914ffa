// Function bodies as trees of plain objects, read with binaryen. Only the instructions that the core may
// have are known; any other throws, so that memory.grow, call_indirect, a wait, an exception, a table or
// a global that somebody brings in is an error by itself and not by being thought of.
import binaryen from "binaryen";

export type Expression =
  | { kind: "block"; name: string | null; children: Expression[] }
  | { kind: "if"; condition: Expression; ifTrue: Expression; ifFalse: Expression | null }
  | { kind: "loop"; name: string; body: Expression }
  | { kind: "break"; name: string; condition: Expression | null; value: Expression | null }
  | { kind: "switch"; names: string[]; condition: Expression; value: Expression | null }
  | { kind: "call"; target: string; operands: Expression[] }
  | { kind: "local.get"; index: number }
  | { kind: "local.set"; index: number; value: Expression }
  | { kind: "const"; value: number | null }
  | { kind: "unary"; op: string; value: Expression }
  | { kind: "binary"; op: string; left: Expression; right: Expression }
  | { kind: "select"; ifTrue: Expression; ifFalse: Expression; condition: Expression }
  | { kind: "return"; value: Expression | null }
  | { kind: "unreachable" }
  /** Nothing that changes locals or the flow: operands only. */
  | { kind: "plain"; what: string; children: Expression[] };

export interface WasmFunction {
  name: string;
  /** Where an imported function comes from; its body is null. */
  imported: string | null;
  paramCount: number;
  localCount: number;
  body: Expression | null;
}

export interface WasmModule {
  functions: Map<string, WasmFunction>;
  /** Export name → function name. */
  exports: Map<string, string>;
}

/**
 * The operations that mean something to the proof; all others are "other". Unary ones have numbers of
 * their own.
 */
const UNARY = new Map<number, string>([[binaryen.EqZInt32, "eqz"]]);
const BINARY = new Map<number, string>([
  [binaryen.AddInt32, "add"],
  [binaryen.SubInt32, "sub"],
  [binaryen.AndInt32, "and"],
  [binaryen.OrInt32, "or"],
  [binaryen.XorInt32, "xor"],
  [binaryen.EqInt32, "eq"],
  [binaryen.NeInt32, "ne"],
  [binaryen.LtUInt32, "lt_u"],
  [binaryen.LeUInt32, "le_u"],
  [binaryen.GtUInt32, "gt_u"],
  [binaryen.GeUInt32, "ge_u"],
  [binaryen.LtSInt32, "lt_s"],
  [binaryen.LeSInt32, "le_s"],
  [binaryen.GtSInt32, "gt_s"],
  [binaryen.GeSInt32, "ge_s"],
]);

function nameOfKind(id: number): string {
  // A const enum in the types, an object at run time.
  const { ExpressionIds } = binaryen as unknown as { ExpressionIds: Record<string, number> };
  const names = Object.entries(ExpressionIds);
  return names.find(([, number]) => number === id)?.[0] ?? `kind ${id}`;
}

function readExpression(ref: number): Expression {
  const id = binaryen.getExpressionId(ref);
  // These two first: newer binaryen's getExpressionInfo() throws on them.
  if (id === binaryen.NopId) return { kind: "plain", what: "nop", children: [] };
  if (id === binaryen.UnreachableId) return { kind: "unreachable" };
  const any = binaryen.getExpressionInfo(ref);
  const optional = (child: number) => (child === 0 ? null : readExpression(child));
  const plain = (what: string, ...children: number[]): Expression => ({
    kind: "plain",
    what,
    children: children.map(readExpression),
  });
  switch (id) {
    case binaryen.BlockId: {
      const info = any as binaryen.BlockInfo;
      return { kind: "block", name: info.name || null, children: info.children.map(readExpression) };
    }
    case binaryen.IfId: {
      const info = any as binaryen.IfInfo;
      const condition = readExpression(info.condition);
      return { kind: "if", condition, ifTrue: readExpression(info.ifTrue), ifFalse: optional(info.ifFalse) };
    }
    case binaryen.LoopId: {
      const info = any as binaryen.LoopInfo;
      return { kind: "loop", name: info.name, body: readExpression(info.body) };
    }
    case binaryen.BreakId: {
      const info = any as binaryen.BreakInfo;
      const value = optional(info.value);
      return { kind: "break", name: info.name, condition: optional(info.condition), value };
    }
    case binaryen.SwitchId: {
      const info = any as binaryen.SwitchInfo;
      const names = info.defaultName === null ? info.names : [...info.names, info.defaultName];
      return {
        kind: "switch",
        names,
        condition: readExpression(info.condition),
        value: optional(info.value),
      };
    }
    case binaryen.CallId: {
      const info = any as binaryen.CallInfo;
      if (info.isReturn) throw new Error("not allowed: a tail call");
      return { kind: "call", target: info.target, operands: info.operands.map(readExpression) };
    }
    case binaryen.LocalGetId:
      return { kind: "local.get", index: (any as binaryen.LocalGetInfo).index };
    case binaryen.LocalSetId: {
      const info = any as binaryen.LocalSetInfo;
      return { kind: "local.set", index: info.index, value: readExpression(info.value) };
    }
    case binaryen.ConstId: {
      const { type, value } = any as binaryen.ConstInfo;
      return {
        kind: "const",
        value: type === binaryen.i32 && typeof value === "number" ? value >>> 0 : null,
      };
    }
    case binaryen.UnaryId: {
      const info = any as binaryen.UnaryInfo;
      const op = UNARY.get(info.op) ?? "other";
      return { kind: "unary", op, value: readExpression(info.value) };
    }
    case binaryen.BinaryId: {
      const info = any as binaryen.BinaryInfo;
      const op = BINARY.get(info.op) ?? "other";
      return { kind: "binary", op, left: readExpression(info.left), right: readExpression(info.right) };
    }
    case binaryen.SelectId: {
      const info = any as binaryen.SelectInfo;
      const ifTrue = readExpression(info.ifTrue);
      const ifFalse = readExpression(info.ifFalse);
      return { kind: "select", ifTrue, ifFalse, condition: readExpression(info.condition) };
    }
    case binaryen.ReturnId:
      return { kind: "return", value: optional((any as binaryen.ReturnInfo).value) };
    case binaryen.DropId:
      return plain("drop", (any as binaryen.DropInfo).value);
    case binaryen.LoadId:
      return plain("load", (any as binaryen.LoadInfo).ptr);
    case binaryen.StoreId: {
      const info = any as binaryen.StoreInfo;
      return plain("store", info.ptr, info.value);
    }
    case binaryen.AtomicRMWId: {
      const info = any as binaryen.AtomicRMWInfo;
      return plain("atomic.rmw", info.ptr, info.value);
    }
    case binaryen.AtomicCmpxchgId: {
      const info = any as binaryen.AtomicCmpxchgInfo;
      return plain("atomic.cmpxchg", info.ptr, info.expected, info.replacement);
    }
    case binaryen.MemoryCopyId: {
      const info = any as binaryen.MemoryCopyInfo;
      return plain("memory.copy", info.dest, info.source, info.size);
    }
    case binaryen.MemoryFillId: {
      const info = any as binaryen.MemoryFillInfo;
      return plain("memory.fill", info.dest, info.value, info.size);
    }
    case binaryen.MemorySizeId:
      return plain("memory.size");
    default:
      throw new Error(`not allowed: ${nameOfKind(id)}`);
  }
}

/** All functions of a module; throws on the first instruction that the core must not have. */
export function readModule(module: binaryen.Module): WasmModule {
  const functions = new Map<string, WasmFunction>();
  for (let i = 0; i < module.getNumFunctions(); i++) {
    const info = binaryen.getFunctionInfo(module.getFunctionByIndex(i));
    const paramCount = binaryen.expandType(info.params).length;
    const imported = info.module ? `${info.module}.${info.base}` : null;
    let body: Expression | null = null;
    try {
      if (imported === null) body = readExpression(info.body);
    } catch (error) {
      throw new Error(`${info.name}: ${(error as Error).message}`, { cause: error });
    }
    const localCount = paramCount + info.vars.length;
    functions.set(info.name, { name: info.name, imported, paramCount, localCount, body });
  }
  const exports = new Map<string, string>();
  for (let i = 0; i < module.getNumExports(); i++) {
    const info = binaryen.getExportInfo(module.getExportByIndex(i));
    if (info.kind === binaryen.ExternalFunction) exports.set(info.name, info.value);
  }
  return { functions, exports };
}

export function readBinary(binary: Uint8Array): WasmModule {
  const module = binaryen.readBinaryWithFeatures(binary, binaryen.Features.All);
  try {
    return readModule(module);
  } finally {
    module.dispose();
  }
}

export function readText(text: string): WasmModule {
  const module = binaryen.parseText(text);
  try {
    return readModule(module);
  } finally {
    module.dispose();
  }
}

/** The expressions directly inside, in the order in which they run. */
export function childrenOf(expression: Expression): Expression[] {
  const present = (...children: (Expression | null)[]) => children.filter((child) => child !== null);
  switch (expression.kind) {
    case "block":
    case "plain":
      return expression.children;
    case "if":
      return present(expression.condition, expression.ifTrue, expression.ifFalse);
    case "loop":
      return [expression.body];
    case "break":
    case "switch":
      return present(expression.value, expression.condition);
    case "call":
      return expression.operands;
    case "local.set":
    case "unary":
      return [expression.value];
    case "binary":
      return [expression.left, expression.right];
    case "select":
      return [expression.ifTrue, expression.ifFalse, expression.condition];
    case "return":
      return present(expression.value);
    case "const":
    case "local.get":
    case "unreachable":
      return [];
  }
}

/** Calls `visit` for an expression and everything in it. */
export function eachExpression(root: Expression, visit: (expression: Expression) => void): void {
  visit(root);
  for (const child of childrenOf(root)) eachExpression(child, visit);
}
