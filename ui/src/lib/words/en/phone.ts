// The phone's pages.

export const say = {};
