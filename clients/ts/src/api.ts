// What can be asked, by method and path: types only. They come from the API document (schema.d.ts), and from `Interim` for routes that
// the document does not have yet.

import type { Interim } from "./interim.js";
import type { paths } from "./schema.js";
import type { Abortable } from "./waiting.js";

export type Api = Omit<paths, keyof Interim> & Interim;
export type Method = "get" | "put" | "post" | "patch" | "delete";

type Of<Path extends keyof Api, M extends Method> = Api[Path] extends { [K in M]: infer Operation } ? Operation : never;
type Has<Operation, Key extends string, Field> = Operation extends { [K in Key]: infer Value } ? ([Value] extends [undefined] ? Field : Value) : Field;

type Responses<Operation> = Has<Operation, "responses", never>;
type Content<Answer> = Answer extends { content: infer Types }
  ? Types extends { "application/json": infer Json }
    ? Json
    : Types extends { "text/event-stream": unknown }
      ? never
      : string
  : undefined;
type Good<All> = { [Status in keyof All & (200 | 201 | 202 | 204)]: Content<All[Status]> }[keyof All & (200 | 201 | 202 | 204)];

/** What the operation answers when it succeeds; `undefined` where there is no body. */
export type Answer<M extends Method, Path extends keyof Api> = Good<Responses<Of<Path, M>>>;

/** The paths that know a method; those of event streams are `watch`'s. */
export type PathOf<M extends Method> = {
  [Path in keyof Api]: [Of<Path, M>] extends [never] ? never : [Answer<M, Path>] extends [never] ? never : Path;
}[keyof Api];

/** Bytes as a body. */
export type Bytes = Uint8Array<ArrayBuffer> | ArrayBuffer | Blob;

type BodyOf<Content> = Content extends { "application/json": infer Json } ? Json : Bytes;
type RequestBody<Operation> = Has<Operation, "requestBody", never>;
// A query of which nothing must be told is one all the same.
type Params<Operation, In extends string> = In extends keyof Has<Operation, "parameters", never> ? NonNullable<Has<Operation, "parameters", never>[In]> : never;

type Path<Parameters> = [Parameters] extends [never] ? { path?: undefined } : { path: Parameters };
type Query<Parameters> = [Parameters] extends [never] ? { query?: undefined } : Record<never, never> extends Parameters ? { query?: Parameters } : { query: Parameters };
type Body<Request> = [Request] extends [never] ? { body?: undefined } : Request extends { content: infer Content } ? { body: BodyOf<Content> } : never;

/** How long, how often, and until when. */
export interface CallOptions extends Abortable {
  /** Milliseconds for the whole call with its retries; 60 000 without it. */
  timeout?: number | undefined;
  /** Milliseconds for one try; the service's `attemptTimeout` without it. */
  attemptTimeout?: number | undefined;
  /** Whether a try that failed on the line or in the server is repeated. Without it: all but `post`, which might do things twice. */
  retry?: boolean | undefined;
  /** Waits as long as a 429 says and asks again, within `timeout`, instead of failing. */
  waitWhenBusy?: boolean | undefined;
  /** Media type of a body of bytes. */
  contentType?: string | undefined;
  /** Lets the request outlive the page that sends it, for a last word on leaving. Bodies are small then (64 KiB). */
  keepalive?: boolean | undefined;
}

/** What an operation needs to be asked. */
export type Init<M extends Method, P extends keyof Api> = Path<Params<Of<P, M>, "path">> & Query<Params<Of<P, M>, "query">> & Body<RequestBody<Of<P, M>>> & CallOptions;

/** The last argument of a call, which may be left out where nothing in it is needed. */
export type Rest<M extends Method, P extends keyof Api> = Record<never, never> extends Init<M, P> ? [init?: Init<M, P>] : [init: Init<M, P>];
