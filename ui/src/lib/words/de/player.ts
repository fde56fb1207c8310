// The player.

export const say = {};
