// Starts the pages: words first, so that nothing is ever drawn in the wrong language.
import "./styles/tokens.css";
import "./styles/components.css";
import "./styles/pages.css";
import { mount } from "svelte";
import App from "./App.svelte";
import { installed } from "./lib/install.svelte";
import { preferences } from "./lib/preferences.svelte";
import { router } from "./lib/router.svelte";
import { session } from "./lib/session.svelte";
import { takeShared } from "./lib/shared";
import { chooseLanguage } from "./lib/words";

await chooseLanguage([...(preferences.language ? [preferences.language] : []), ...navigator.languages]);
const shared = takeShared();
if (shared) router.go(`/files?magnet=${encodeURIComponent(shared)}`, { replace: true });
const target = document.getElementById("app");
if (target) mount(App, { target });
void session.open();
void installed.begin();
