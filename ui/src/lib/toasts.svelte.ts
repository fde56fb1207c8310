// What just happened, for a moment, with a way to undo it.

export interface Toast {
  id: number;
  text: string;
  action?: { label: string; act: () => void };
}

/** How long a toast stays, in milliseconds. */
export const TOAST_STAYS = 6000;

class Toasts {
  list = $state<Toast[]>([]);
  #next = 0;

  show(text: string, action?: Toast["action"]): void {
    // The same sentence twice is one sentence.
    this.list = [...this.list.filter((toast) => toast.text !== text), { id: this.#next++, text, action }].slice(-3);
  }

  drop(id: number): void {
    this.list = this.list.filter((toast) => toast.id !== id);
  }
}

export const toasts = new Toasts();
