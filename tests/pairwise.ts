// Rows of a matrix in which every two values of different columns meet at least once: what a full product of many
// columns is thinned to. Always the same rows for the same columns.

export type Row = Record<string, string>;

/** `fits`: whether two values may stand in one row; each value needs a fitting one in every other column. */
export function pairwise(
  columns: Record<string, readonly string[]>,
  fits: (row: Row) => boolean = () => true,
): Row[] {
  const names = Object.keys(columns);
  const key = (a: string, x: string, b: string, y: string) =>
    names.indexOf(a) < names.indexOf(b) ? `${a}=${x}, ${b}=${y}` : `${b}=${y}, ${a}=${x}`;
  const open = new Map<string, Row>();
  for (const [i, a] of names.entries()) {
    for (const b of names.slice(i + 1)) {
      for (const x of columns[a] ?? []) {
        for (const y of columns[b] ?? []) {
          if (fits({ [a]: x, [b]: y })) open.set(key(a, x, b, y), { [a]: x, [b]: y });
        }
      }
    }
  }
  const gain = (row: Row, name: string, value: string) =>
    Object.entries(row).filter(([other, held]) => open.has(key(name, value, other, held))).length;
  const rows: Row[] = [];
  for (let [pair] = open.values(); pair !== undefined; [pair] = open.values()) {
    const row: Row = { ...pair };
    for (const [at, name] of names.entries()) {
      if (row[name] !== undefined) continue;
      const values = columns[name] ?? [];
      // Among equally good ones another first in each row, and in each column by a turn of its own.
      const turn = Math.imul(rows.length + 1, 0x9e3779b1) >>> (at + 8);
      const turned = values.map((_, i) => values[(i + turn) % values.length] as string);
      const fitting = turned.filter((value) => fits({ ...row, [name]: value }));
      const best = fitting.reduce((a, b) => (gain(row, name, b) > gain(row, name, a) ? b : a));
      row[name] = best;
    }
    for (const [i, a] of names.entries()) {
      for (const b of names.slice(i + 1)) open.delete(key(a, row[a] as string, b, row[b] as string));
    }
    rows.push(row);
  }
  return rows;
}
