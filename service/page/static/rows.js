// Keys and copying for the pages of rows. Everything here has a link or a form as well.
"use strict";

const help = () => document.getElementById("keys");
const links = () => [...document.querySelectorAll(".rows li > a")];

function move(by) {
  const all = links();
  const at = all.indexOf(document.activeElement.closest("li")?.querySelector("a"));
  all[Math.min(Math.max(at + by, 0), all.length - 1)]?.focus();
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input:not([type=checkbox]), select, textarea");
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (typing) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const link = [...document.querySelectorAll("[data-key]")].find((one) => one.dataset.key === event.key);
  if (link) link.click();
  else if (event.key === "?") help()?.showModal();
  else if (event.key === "/") document.getElementById("q")?.focus();
  else if (event.key === "x") document.activeElement.closest(".rows li")?.querySelector("input")?.click();
  else if (event.key === "j" || event.key === "k") move(event.key === "j" ? 1 : -1);
  else return;
  event.preventDefault();
});

async function textOf(button) {
  if (button.dataset.copy === "link") {
    const link = new URL(location.href);
    link.searchParams.set("at", button.dataset.id);
    link.hash = button.dataset.id;
    return link.href;
  }
  const row = (await (await fetch(button.dataset.url)).json()).rows[0];
  const parts = [row.prompt, row.reasoning, row.answer].filter(Boolean);
  return button.dataset.copy === "text" ? parts.join("\n\n") : JSON.stringify(row, null, 2);
}

document.addEventListener("click", async (event) => {
  if (event.target.closest("[data-help]")) help()?.showModal();
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  let words = "Copied";
  try {
    await navigator.clipboard.writeText(await textOf(button));
  } catch {
    words = "The browser lets nothing be copied here";
  }
  button.textContent = words;
  document.getElementById("copied").textContent = words;
});

document.addEventListener("submit", async (event) => {
  const form = event.target.closest("[data-import]");
  if (!form) return;
  event.preventDefault();
  const wrong = form.querySelector("[role=alert]");
  const button = form.querySelector("button");
  button.disabled = true;
  wrong.hidden = true;
  try {
    const body = form.querySelector("input").files[0];
    const headers = { "x-form-key": form.dataset.formKey, "hx-request": "true" };
    const answer = await fetch(form.dataset.import, { method: "POST", body, headers });
    const text = await answer.text();
    if (text.startsWith("/ui/runs/")) location.href = text;
    else wrong.textContent = new DOMParser().parseFromString(text, "text/html").body.textContent.trim();
  } catch {
    wrong.textContent = "The service could not be reached.";
  }
  wrong.hidden = !wrong.textContent;
  button.disabled = false;
});

function show() {
  for (const one of document.querySelectorAll("[data-copy], [data-help]")) one.hidden = false;
}
show();
document.addEventListener("htmx:afterSettle", show);
