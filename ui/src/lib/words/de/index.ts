// German.
import type { Catalogue } from "../en";
import { say as common } from "./common";
import { say as desk } from "./desk";
import { say as phone } from "./phone";
import { say as player } from "./player";
import { errors, failures, findings, messages, whys } from "./server";

export const words: Catalogue = { say: { ...common, ...desk, ...phone, ...player }, messages, whys, findings, failures, errors };



