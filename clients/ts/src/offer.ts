// The text of a pairing QR code. The secret stands in its fragment, which browsers do not send.

export interface ScannedOffer {
  offerId: string;
  secret: string;
  /** First 16 bytes of SHA-256 of the server's certificate authority, base64url; compare it with `checkHealth().fingerprint`. */
  fingerprint: string;
}

/** Reads what a QR code says, or the page's `location.hash`; `undefined` where that is no offer of ours. */
export function readOffer(text: string): ScannedOffer | undefined {
  const found = /#v1\.([\w-]{1,100})\.([\w-]{1,100})\.([\w-]{1,100})$/.exec(text.trim());
  const [, offerId, secret, fingerprint] = found ?? [];
  return offerId && secret && fingerprint ? { offerId, secret, fingerprint } : undefined;
}
