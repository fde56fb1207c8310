// The signs of the interface: 24 grid, drawn with one stroke; the solid ones are filled.

/** Inside of an `<svg viewBox="0 0 24 24">`. Constants of ours, so they may go in as markup. */
export const icons = {
  home: '<path d="M4 11.5 12 4l8 7.5"/><path d="M6 10v9h12v-9"/>',
  phone: '<rect x="7" y="2.75" width="10" height="18.5" rx="2.25"/><path d="M11 18h2"/>',
  tablet: '<rect x="4.5" y="2.75" width="15" height="18.5" rx="2.25"/><path d="M11 18h2"/>',
  computer: '<rect x="2.75" y="5" width="18.5" height="11.5" rx="2"/><path d="M8 20h8"/>',
  settings: '<path d="M4 7h9M19 7h1M4 17h1M11 17h9"/><circle cx="16" cy="7" r="2.5"/><circle cx="8" cy="17" r="2.5"/>',
  pulse: '<path d="M3 12h4l2.5-6 5 12 2.5-6h4"/>',
  link: '<path d="M10 14a4 4 0 0 0 5.7 0l3.1-3.1a4 4 0 0 0-5.7-5.7L12 6.3"/><path d="M14 10a4 4 0 0 0-5.7 0l-3.1 3.1a4 4 0 0 0 5.7 5.7l1.1-1.1"/>',
  clock: '<circle cx="12" cy="12" r="8.5"/><path d="M12 7.5V12l3 2"/>',
  check: '<path d="m5 12.5 4.5 4.5L19 7.5"/>',
  cross: '<path d="m6 6 12 12M18 6 6 18"/>',
  warn: '<path d="M12 4 2.75 19.5h18.5z"/><path d="M12 10v4.5M12 17.2v.1"/>',
  info: '<circle cx="12" cy="12" r="9"/><path d="M12 11v5.5M12 7.7v.1"/>',
  again: '<path d="M19.5 12a7.5 7.5 0 1 1-2.2-5.3L19.5 9"/><path d="M19.5 4v5h-5"/>',
  down: '<path d="m5.5 9.5 6.5 6.5 6.5-6.5"/>',
  right: '<path d="m9.5 5.5 6.5 6.5-6.5 6.5"/>',
  left: '<path d="m14.5 5.5-6.5 6.5 6.5 6.5"/>',
  paste: '<rect x="5" y="4.5" width="14" height="16.5" rx="2.25"/><path d="M9 4.5a1.75 1.75 0 0 1 1.75-1.75h2.5A1.75 1.75 0 0 1 15 4.5v1.75H9z"/>',
  more: '<path d="M5.5 12h.01M12 12h.01M18.5 12h.01" stroke-width="2.6"/>',
  play: '<path d="M8 5.6v12.8c0 .9 1 1.5 1.8 1l10-6.4a1.2 1.2 0 0 0 0-2l-10-6.4c-.8-.5-1.8.1-1.8 1z"/>',
  cast: '<path d="M7 16H5.5a2 2 0 0 1-2-2V7a2 2 0 0 1 2-2h13a2 2 0 0 1 2 2v7a2 2 0 0 1-2 2H17"/><path d="m12 14.5 4.25 5h-8.5z"/>',
  back10: '<path d="M4.5 12a7.5 7.5 0 1 0 2.3-5.4L4.5 8.8"/><path d="M4.5 4v4.8h4.8"/><text x="12" y="14.8" text-anchor="middle" font-size="7.5" font-weight="700" fill="currentColor" stroke="none">10</text>',
  on10: '<path d="M19.5 12a7.5 7.5 0 1 1-2.3-5.4l2.3 2.2"/><path d="M19.5 4v4.8h-4.8"/><text x="12" y="14.8" text-anchor="middle" font-size="7.5" font-weight="700" fill="currentColor" stroke="none">10</text>',
  hd: '<rect x="3" y="5.5" width="18" height="13" rx="2.5"/><path d="M7 9.5v5M10.5 9.5v5M7 12h3.5M13.5 9.5v5h1.25a2.5 2.5 0 0 0 0-5z"/>',
  sound: '<path d="M4 9.75v4.5h3.25L12 18.5v-13L7.25 9.75z"/><path d="M15.5 9a4 4 0 0 1 0 6M18 6.5a7.5 7.5 0 0 1 0 11"/>',
  muted: '<path d="M4 9.75v4.5h3.25L12 18.5v-13L7.25 9.75z"/><path d="m16 9.75 4.5 4.5M20.5 9.75 16 14.25"/>',
  subtitles: '<rect x="3" y="5.5" width="18" height="13" rx="2.5"/><path d="M7 14.5h4M13.5 14.5H17M7 11h2M11.5 11H17"/>',
  speed: '<path d="M4.5 18a9 9 0 1 1 15 0"/><path d="m12 14 3.5-4.5"/>',
  pip: '<rect x="3" y="5" width="18" height="14" rx="2.25"/><rect x="12" y="12" width="6" height="4.25" rx="1" fill="currentColor" stroke="none"/>',
  full: '<path d="M4 9V4.5h4.5M20 9V4.5h-4.5M4 15v4.5h4.5M20 15v4.5h-4.5"/>',
  unfull: '<path d="M8.5 4.5V9H4M15.5 4.5V9H20M8.5 19.5V15H4M15.5 19.5V15H20"/>',
  square: '<rect x="6.5" y="6.5" width="11" height="11" rx="1.75"/>',
  download: '<path d="M12 4v11.5M7 11l5 5 5-5M5 20h14"/>',
  pause: '<rect x="6" y="5" width="4.25" height="14" rx="1.2"/><rect x="13.75" y="5" width="4.25" height="14" rx="1.2"/>',
} as const;

export type IconName = keyof typeof icons;
/** Those that are filled. */
export const solid: ReadonlySet<IconName> = new Set(["pause", "play"]);
