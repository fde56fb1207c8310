// The computer's pages.

export const say = {};
