// The browser's own reader of XML, in place of the one that Video.js brings for DASH: a tenth of the player's size.
export const DOMParser = globalThis.DOMParser;
