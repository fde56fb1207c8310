// Starts the pages: words first, so that nothing is ever drawn in the wrong language.
import "./styles/tokens.css";
import "./styles/components.css";
import "./styles/pages.css";
import { mount } from "svelte";
import App from "./App.svelte";
import { install } from "./lib/install";
import { session } from "./lib/session.svelte";
import { chooseLanguage } from "./lib/words";

await chooseLanguage(navigator.languages);
const target = document.getElementById("app");
if (target) mount(App, { target });
void session.open();
void install();
