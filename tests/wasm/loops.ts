// Proves for every loop that a function can reach how often it turns back at most: a number, found in the
// binary itself. What it cannot prove it calls unproved; it never guesses.
//
// A loop is bounded if one of its locals is a counter: on every path from the loop's start to a branch
// back to it, the counter moves by a constant in one direction, and a comparison with a constant has held
// on that path that the counter cannot pass without wrapping around. The proof walks the structured code
// once a loop, with each local as "its value when this turn began, plus a constant", "a constant", or
// unknown, and keeps for every condition what its truth and its untruth say about the values at the
// turn's beginning. Those values do not change during a turn, so what was once learnt stays true until
// the branch back.
import {
  childrenOf,
  type Expression,
  eachExpression,
  type WasmFunction,
  type WasmModule,
} from "./expressions.js";

/** What is known of one i32, as unsigned and as signed number. */
interface Range {
  minU: number;
  maxU: number;
  minS: number;
  maxS: number;
  /** Unsigned values that it does not have. */
  excluded: number[];
}

/**
 * "local,offset" → range of (the local at the turn's beginning + offset), modulo 2^32. null: this cannot
 * happen.
 */
type Facts = ReadonlyMap<string, Range> | null;

interface Value {
  /** Unsigned, or null. */
  constant: number | null;
  /** The value is local `base` at the turn's beginning + low … high; -1: it is not. */
  base: number;
  low: number;
  high: number;
  /** What follows if the value is not 0, and if it is 0. */
  whenTrue: Facts;
  whenFalse: Facts;
  /** Known to be 0 or 1. */
  isBool: boolean;
}

/** null: this point is never reached. */
type State = { locals: Value[]; facts: ReadonlyMap<string, Range> } | null;

interface Path {
  state: State;
  value: Value;
}

export interface LoopBound {
  functionName: string;
  label: string;
  /** Most branches back to the loop's start per entry; null: unproved. */
  turns: number | null;
  /** The counting local and its step, or why there is none. */
  how: string;
}

const TWO32 = 2 ** 32;
const INT_MAX = 2 ** 31 - 1;
const INT_MIN = -(2 ** 31);
/** Larger steps than this are no counting. */
const OFFSET_MAX = 2 ** 20;
const NOTHING: ReadonlyMap<string, Range> = new Map();
const UNKNOWN: Value = {
  constant: null,
  base: -1,
  low: 0,
  high: 0,
  whenTrue: NOTHING,
  whenFalse: NOTHING,
  isBool: false,
};
const ANY: Range = { minU: 0, maxU: TWO32 - 1, minS: INT_MIN, maxS: INT_MAX, excluded: [] };

function constantValue(constant: number): Value {
  const isTrue = constant !== 0;
  return {
    ...UNKNOWN,
    constant,
    whenTrue: isTrue ? NOTHING : null,
    whenFalse: isTrue ? null : NOTHING,
    isBool: constant <= 1,
  };
}

function symbol(base: number, low: number, high: number): Value {
  if (Math.abs(low) > OFFSET_MAX || Math.abs(high) > OFFSET_MAX) return UNKNOWN;
  const value = { ...UNKNOWN, base, low, high };
  if (low !== high) return value;
  return { ...value, whenTrue: fact(value, { excluded: [0], minU: 1 }), whenFalse: fact(value, equals(0)) };
}

function equals(constant: number): Partial<Range> {
  return { minU: constant, maxU: constant, minS: constant | 0, maxS: constant | 0 };
}

/** One fact about a value with a known offset. Ranges that hold nothing make it impossible. */
function fact(value: Value, known: Partial<Range>): Facts {
  const range = { ...ANY, ...known };
  if (range.minU > range.maxU || range.minS > range.maxS) return null;
  return new Map([[`${value.base},${value.low}`, range]]);
}

/** Both hold. */
function both(first: Facts, second: Facts): Facts {
  if (first === null || second === null) return null;
  const all = new Map(first);
  for (const [key, b] of second) {
    const a = all.get(key) ?? ANY;
    all.set(key, {
      minU: Math.max(a.minU, b.minU),
      maxU: Math.min(a.maxU, b.maxU),
      minS: Math.max(a.minS, b.minS),
      maxS: Math.min(a.maxS, b.maxS),
      excluded: [...new Set([...a.excluded, ...b.excluded])],
    });
  }
  return all;
}

/** One of them holds. */
function either(first: Facts, second: Facts): Facts {
  if (first === null) return second;
  if (second === null) return first;
  const common = new Map<string, Range>();
  for (const [key, a] of first) {
    const b = second.get(key);
    if (b === undefined) continue;
    common.set(key, {
      minU: Math.min(a.minU, b.minU),
      maxU: Math.max(a.maxU, b.maxU),
      minS: Math.min(a.minS, b.minS),
      maxS: Math.max(a.maxS, b.maxS),
      excluded: a.excluded.filter((constant) => b.excluded.includes(constant)),
    });
  }
  return common;
}

function eitherValue(first: Value, second: Value): Value {
  const facts = {
    whenTrue: either(first.whenTrue, second.whenTrue),
    whenFalse: either(first.whenFalse, second.whenFalse),
    isBool: first.isBool && second.isBool,
  };
  if (first.constant !== null && first.constant === second.constant) return { ...first, ...facts };
  if (first.base >= 0 && first.base === second.base) {
    const low = Math.min(first.low, second.low);
    const high = Math.max(first.high, second.high);
    return { ...UNKNOWN, base: first.base, low, high, ...facts };
  }
  return { ...UNKNOWN, ...facts };
}

function assume(state: State, facts: Facts): State {
  if (state === null) return null;
  const known = both(state.facts, facts);
  return known === null ? null : { locals: state.locals, facts: known };
}

/** Where two paths meet. What a value says is joined with what each path knows. */
function meet(first: Path, second: Path): Path {
  if (first.state === null) return second;
  if (second.state === null) return first;
  const firstState = first.state;
  const secondState = second.state;
  const informed = ({ value }: Path, facts: Facts): Value => ({
    ...value,
    whenTrue: both(facts, value.whenTrue),
    whenFalse: both(facts, value.whenFalse),
  });
  return {
    state: {
      locals: firstState.locals.map((value, i) => eitherValue(value, secondState.locals[i] ?? UNKNOWN)),
      facts: either(firstState.facts, secondState.facts) ?? NOTHING,
    },
    value: eitherValue(informed(first, firstState.facts), informed(second, secondState.facts)),
  };
}

const NEGATED: Record<string, string> = { ge_u: "lt_u", gt_u: "le_u", ge_s: "lt_s", gt_s: "le_s", ne: "eq" };
const MIRRORED: Record<string, string> = {
  lt_u: "gt_u",
  gt_u: "lt_u",
  le_u: "ge_u",
  ge_u: "le_u",
  lt_s: "gt_s",
  gt_s: "lt_s",
  le_s: "ge_s",
  ge_s: "le_s",
  eq: "eq",
  ne: "ne",
};

function not(value: Value): Value {
  return { ...UNKNOWN, whenTrue: value.whenFalse, whenFalse: value.whenTrue, isBool: true };
}

function compare(op: string, left: Value, right: Value): Value {
  if (left.constant !== null && right.constant === null) return compare(MIRRORED[op] ?? "", right, left);
  const bound = right.constant;
  if (bound === null || left.base < 0 || left.low !== left.high) return { ...UNKNOWN, isBool: true };
  const negated = NEGATED[op];
  if (negated !== undefined) return not(compare(negated, left, right));
  const signed = bound | 0;
  const says = (whenTrue: Partial<Range>, whenFalse: Partial<Range>): Value => ({
    ...UNKNOWN,
    isBool: true,
    whenTrue: fact(left, whenTrue),
    whenFalse: fact(left, whenFalse),
  });
  switch (op) {
    case "lt_u":
      return says({ maxU: bound - 1 }, { minU: bound });
    case "le_u":
      return says({ maxU: bound }, { minU: bound + 1 });
    case "lt_s":
      return says({ maxS: signed - 1 }, { minS: signed });
    case "le_s":
      return says({ maxS: signed }, { minS: signed + 1 });
    case "eq":
      return says(equals(bound), { excluded: [bound], ...(bound === 0 ? { minU: 1 } : {}) });
    default:
      return { ...UNKNOWN, isBool: true };
  }
}

function add(left: Value, right: Value): Value {
  if (left.constant !== null && right.constant !== null) {
    return constantValue((left.constant + right.constant) >>> 0);
  }
  if (left.constant !== null) return add(right, left);
  if (right.constant === null || left.base < 0) return UNKNOWN;
  const by = right.constant | 0;
  return symbol(left.base, left.low + by, left.high + by);
}

function binary(op: string, left: Value, right: Value): Value {
  switch (op) {
    case "add":
      return add(left, right);
    case "sub":
      return right.constant === null ? UNKNOWN : add(left, constantValue(-right.constant >>> 0));
    case "and":
      return {
        ...UNKNOWN,
        isBool: left.isBool || right.isBool,
        whenTrue: both(left.whenTrue, right.whenTrue),
        // 1 & 2 is 0: only of two truth values must one be untrue.
        whenFalse: left.isBool && right.isBool ? either(left.whenFalse, right.whenFalse) : NOTHING,
      };
    case "or":
      return {
        ...UNKNOWN,
        isBool: left.isBool && right.isBool,
        whenTrue: either(left.whenTrue, right.whenTrue),
        whenFalse: both(left.whenFalse, right.whenFalse),
      };
    case "xor":
      return left.isBool && right.constant === 1 ? not(left) : UNKNOWN;
    case "other":
      return UNKNOWN;
    default:
      return compare(op, left, right);
  }
}

const assignedIn = new WeakMap<Expression, Set<number>>();

/** Locals that are written somewhere in the expression. */
function assignedLocals(expression: Expression): Set<number> {
  let found = assignedIn.get(expression);
  if (found === undefined) {
    const locals = new Set<number>();
    eachExpression(expression, (inner) => {
      if (inner.kind === "local.set") locals.add(inner.index);
    });
    found = locals;
    assignedIn.set(expression, found);
  }
  return found;
}

type Loop = Expression & { kind: "loop" };

class Walk {
  state: State;
  /** Every loop that is entered, with what is known then. */
  readonly entries = new Map<Loop, NonNullable<State>>();
  readonly #labels = new Map<string, Path[]>();
  readonly #leavesOutside: boolean;

  /** `leavesOutside`: branches to labels that are not there leave what is looked at. */
  constructor(state: State, leavesOutside: boolean) {
    this.state = state;
    this.#leavesOutside = leavesOutside;
  }

  /** Runs `body` under a label; the paths that branched to it. */
  inLabel(label: string | null, body: () => Value): { value: Value; arrived: Path[] } {
    if (label === null) return { value: body(), arrived: [] };
    const outer = this.#labels.get(label);
    const arrived: Path[] = [];
    this.#labels.set(label, arrived);
    const value = body();
    if (outer === undefined) this.#labels.delete(label);
    else this.#labels.set(label, outer);
    return { value, arrived };
  }

  #branch(label: string, value: Value): void {
    const arrived = this.#labels.get(label);
    if (arrived === undefined && !this.#leavesOutside) throw new Error(`no label ${label}`);
    arrived?.push({ state: this.state, value });
  }

  run(expression: Expression): Value {
    // What is never reached proves nothing and harms nothing.
    if (this.state === null) return UNKNOWN;
    switch (expression.kind) {
      case "const":
        return expression.value === null ? UNKNOWN : constantValue(expression.value);
      case "local.get":
        return this.state.locals[expression.index] ?? UNKNOWN;
      case "local.set":
        return this.#set(expression.index, this.run(expression.value));
      case "unary": {
        const value = this.run(expression.value);
        return expression.op === "eqz" ? not(value) : UNKNOWN;
      }
      case "binary": {
        const left = this.run(expression.left);
        return binary(expression.op, left, this.run(expression.right));
      }
      case "select":
        return this.#select(expression);
      case "if":
        return this.#if(expression);
      case "block":
        return this.#block(expression);
      case "loop":
        return this.#innerLoop(expression);
      case "break":
        return this.#break(expression);
      case "switch": {
        const value = expression.value === null ? UNKNOWN : this.run(expression.value);
        this.run(expression.condition);
        for (const name of new Set(expression.names)) this.#branch(name, value);
        this.state = null;
        return UNKNOWN;
      }
      case "return":
        if (expression.value !== null) this.run(expression.value);
        this.state = null;
        return UNKNOWN;
      case "unreachable":
        this.state = null;
        return UNKNOWN;
      case "call":
      case "plain":
        for (const child of childrenOf(expression)) this.run(child);
        return UNKNOWN;
    }
  }

  #set(index: number, value: Value): Value {
    if (this.state !== null) {
      this.state = { locals: this.state.locals.with(index, value), facts: this.state.facts };
    }
    return value;
  }

  #select(expression: Expression & { kind: "select" }): Value {
    const ifTrue = this.run(expression.ifTrue);
    const ifFalse = this.run(expression.ifFalse);
    const condition = this.run(expression.condition);
    const chosen = meet(
      { state: assume(this.state, condition.whenTrue), value: ifTrue },
      { state: assume(this.state, condition.whenFalse), value: ifFalse },
    );
    return chosen.value;
  }

  #if(expression: Expression & { kind: "if" }): Value {
    const condition = this.run(expression.condition);
    const before = this.state;
    this.state = assume(before, condition.whenTrue);
    const ifTrue = { value: this.run(expression.ifTrue), state: this.state };
    this.state = assume(before, condition.whenFalse);
    const value = expression.ifFalse === null ? UNKNOWN : this.run(expression.ifFalse);
    const met = meet(ifTrue, { value, state: this.state });
    this.state = met.state;
    return met.value;
  }

  #block(expression: Expression & { kind: "block" }): Value {
    const { value, arrived } = this.inLabel(expression.name, () => {
      let last = UNKNOWN;
      for (const child of expression.children) last = this.run(child);
      return last;
    });
    let met: Path = { state: this.state, value };
    for (const path of arrived) met = meet(met, path);
    this.state = met.state;
    return met.value;
  }

  /** A loop within what is looked at: of the locals that it writes nothing is known, at no turn of it. */
  #innerLoop(loop: Loop): Value {
    if (this.state === null) return UNKNOWN;
    this.entries.set(loop, this.state);
    const assigned = assignedLocals(loop);
    const { locals, facts } = this.state;
    this.state = { locals: locals.map((value, i) => (assigned.has(i) ? UNKNOWN : value)), facts };
    return this.inLabel(loop.name, () => this.run(loop.body)).value;
  }

  #break(expression: Expression & { kind: "break" }): Value {
    const value = expression.value === null ? UNKNOWN : this.run(expression.value);
    const condition = expression.condition === null ? constantValue(1) : this.run(expression.condition);
    const before = this.state;
    this.state = assume(before, condition.whenTrue);
    if (this.state !== null) this.#branch(expression.name, value);
    this.state = assume(before, condition.whenFalse);
    return value;
  }
}

/** Values of one turn: counter + offset when the turn began, at each branch back. */
interface Progress {
  smallestStep: number;
  largestStep: number;
  /** Over all branches back: what holds of the counted value at every one. */
  range: Range;
  /** The counted value when the loop is entered, if it is known. */
  first: number | null;
}

/** How often a value that makes such progress can turn back, or null. */
function turnsOf({ smallestStep, largestStep, range, first }: Progress): number | null {
  const found: number[] = [];
  const count = (distance: number, step: number) => found.push(Math.max(0, Math.floor(distance / step) + 1));
  if (smallestStep > 0) {
    if (range.maxU + largestStep < TWO32) count(range.maxU - (first ?? 0), smallestStep);
    const signed = first === null ? null : first | 0;
    if (signed !== null && range.maxS + largestStep <= INT_MAX) count(range.maxS - signed, smallestStep);
  } else if (largestStep < 0) {
    const step = -largestStep;
    const most = first ?? range.maxU;
    if (range.minU + smallestStep >= 0 && most < TWO32 - 1) count(most - range.minU, step);
    const signed = first === null ? null : first | 0;
    if (signed !== null && range.minS + smallestStep >= INT_MIN) count(signed - range.minS, step);
  }
  if (smallestStep === largestStep && smallestStep !== 0 && first !== null) {
    for (const constant of range.excluded) {
      const distance = smallestStep > 0 ? constant - first : first - constant;
      const step = Math.abs(smallestStep);
      if (distance >= 0 && distance % step === 0) found.push(distance / step);
    }
  }
  return found.length === 0 ? null : Math.min(...found);
}

function boundOf(loop: Loop, entry: NonNullable<State>): { turns: number | null; how: string } {
  const assigned = assignedLocals(loop);
  const locals = entry.locals.map((value, i) =>
    value.constant !== null && !assigned.has(i) ? value : symbol(i, 0, 0),
  );
  const walk = new Walk({ locals, facts: NOTHING }, true);
  const { arrived } = walk.inLabel(loop.name, () => walk.run(loop.body));
  const back = arrived.map(({ state }) => state).filter((state) => state !== null);
  if (back.length === 0) return { turns: 0, how: "never turns back" };
  let best: { turns: number; how: string } | null = null;
  for (const counter of assigned) {
    const values = back.map(({ locals: atBranch }) => atBranch[counter] ?? UNKNOWN);
    if (values.some((value) => value.base !== counter)) continue;
    const smallestStep = Math.min(...values.map((value) => value.low));
    const largestStep = Math.max(...values.map((value) => value.high));
    const start = entry.locals[counter]?.constant ?? null;
    for (const key of back[0]?.facts.keys() ?? []) {
      const [base, offset] = key.split(",").map(Number);
      if (base !== counter || offset === undefined) continue;
      const range = back.reduce<Facts>(
        (common, { facts }) => either(common, new Map([[key, facts.get(key) ?? ANY]])),
        null,
      );
      const first = start === null ? null : (start + offset) >>> 0;
      const turns = turnsOf({ smallestStep, largestStep, range: range?.get(key) ?? ANY, first });
      if (turns === null || (best !== null && best.turns <= turns)) continue;
      const step = smallestStep === largestStep ? `${smallestStep}` : `${smallestStep} … ${largestStep}`;
      best = { turns, how: `local ${counter} by ${step}` };
    }
  }
  return best ?? { turns: null, how: "no local counts it" };
}

/** The loops of one function in the order of their text. Loops that no path enters turn 0 times. */
export function loopsOf(wasmFunction: WasmFunction): LoopBound[] {
  const { body, name, paramCount, localCount } = wasmFunction;
  if (body === null) return [];
  const zero = constantValue(0);
  const locals = Array.from({ length: localCount }, (_, i) => (i < paramCount ? UNKNOWN : zero));
  const walk = new Walk({ locals, facts: NOTHING }, false);
  walk.run(body);
  const found: LoopBound[] = [];
  eachExpression(body, (expression) => {
    if (expression.kind !== "loop") return;
    const entry = walk.entries.get(expression);
    const bound = entry ? boundOf(expression, entry) : { turns: 0, how: "never entered" };
    found.push({ functionName: name, label: expression.name, ...bound });
  });
  return found;
}

/** All functions that `root` can reach, callees first. Throws on a call that can come back to its caller. */
export function reachableFrom(module: WasmModule, root: string): WasmFunction[] {
  const done = new Map<string, WasmFunction>();
  const active: string[] = [];
  const visit = (name: string) => {
    if (done.has(name)) return;
    if (active.includes(name)) throw new Error(`recursion: ${[...active, name].join(" → ")}`);
    const found = module.functions.get(name);
    if (found === undefined) throw new Error(`no function ${name}`);
    active.push(name);
    if (found.body !== null) {
      eachExpression(found.body, (expression) => {
        if (expression.kind === "call") visit(expression.target);
      });
    }
    active.pop();
    done.set(name, found);
  };
  visit(root);
  return [...done.values()];
}

/** Every loop that the export `exportName` can reach. */
export function proveLoops(module: WasmModule, exportName: string): LoopBound[] {
  const root = module.exports.get(exportName);
  if (root === undefined) throw new Error(`no export ${exportName}`);
  return reachableFrom(module, root).flatMap(loopsOf);
}
