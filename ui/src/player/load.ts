// Loads the player when it is needed: its page and the engine of this browser side by side.

/** The player's component and what it plays with. */
export async function loadPlayer() {
  const [{ default: Player }, engine] = await Promise.all([import("./Player.svelte"), import("./engine").then(({ loadEngine }) => loadEngine())]);
  return { Player, engine };
}
