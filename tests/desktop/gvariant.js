// Reads GVariant's text form, which is how gdbus prints answers, into plain values: tuples and arrays become arrays, dictionaries
// objects, variants what they hold. Numbers of 64 bits lose what JavaScript's numbers lose. It writes nothing.

const TYPE = /@[a-z{}()]+|(?:boolean|byte|int16|uint16|int32|uint32|handle|int64|uint64|double|string|objectpath|signature)(?=\s)/y;
const NUMBER = /[-+]?(?:0x[0-9a-fA-F]+|inf|nan|[0-9.]+(?:e[-+]?[0-9]+)?)/y;
const WORD = /true|false|nothing/y;
const ESCAPES = { a: "\x07", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t", v: "\v" };

/** What a text of GVariant stands for. Throws where it is none. */
export function read(text) {
  let at = 0;

  const fail = () => { throw new Error(`no GVariant at ${at}: ${text.slice(at, at + 40)}`); };
  const blank = () => { while (/\s/.test(text[at] ?? "")) at += 1; };
  const match = (pattern) => {
    pattern.lastIndex = at;
    const found = pattern.exec(text)?.[0];
    at += found?.length ?? 0;
    return found;
  };
  const skip = (sign) => {
    blank();
    if (text[at] !== sign) return false;
    at += 1;
    return true;
  };
  const expect = (sign) => { if (!skip(sign)) fail(); };

  function list(close, item) {
    const items = [];
    while (!skip(close)) {
      items.push(item());
      if (!skip(",") && text[at] !== close) fail();
    }
    return items;
  }

  function entry() {
    const key = value();
    expect(":");
    return [key, value()];
  }

  function string() {
    const quote = text[at];
    let out = "";
    for (at += 1; text[at] !== quote; at += 1) {
      if (at >= text.length) fail();
      if (text[at] !== "\\") { out += text[at]; continue; }
      at += 1;
      const digits = { u: 4, U: 8 }[text[at]];
      if (digits) {
        out += String.fromCodePoint(Number.parseInt(text.slice(at + 1, at + 1 + digits), 16));
        at += digits;
      } else {
        out += ESCAPES[text[at]] ?? text[at];
      }
    }
    at += 1;
    return out;
  }

  function value() {
    blank();
    while (match(TYPE)) blank();
    if (skip("(")) return list(")", value);
    if (skip("[")) return list("]", value);
    if (skip("{")) return Object.fromEntries(list("}", entry));
    if (skip("<")) {
      const held = value();
      expect(">");
      return held;
    }
    if (text[at] === "b" && /["']/.test(text[at + 1])) at += 1;
    if (text[at] === "'" || text[at] === '"') return string();
    const word = match(WORD);
    if (word) return { true: true, false: false }[word];
    return Number(match(NUMBER) ?? fail());
  }

  const whole = value();
  blank();
  return at === text.length ? whole : fail();
}
