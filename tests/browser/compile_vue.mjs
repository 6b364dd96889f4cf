// Compile a Vue component as Vite's plugin does: `node compile_vue.mjs Chat.vue` prints TypeScript.

import { readFileSync } from "node:fs";
import { compileScript, parse } from "vue/compiler-sfc";

const compilerOptions = { isCustomElement: (tag) => tag === "openai-chatkit" };
const { descriptor, errors } = parse(readFileSync(process.argv[2], "utf8"), { templateParseOptions: compilerOptions });
if (errors.length) throw errors[0];
const script = compileScript(descriptor, { id: "chat", inlineTemplate: true, templateOptions: { compilerOptions } });
process.stdout.write(script.content);
