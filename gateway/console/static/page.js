"use strict";
// The page works without this script, except asking and switching faults. Parts of the page are rendered on the server: the
// script fetches the page again and replaces the elements of the class "part". Text of others is only ever set as text.

const byId = (id) => document.getElementById(id);
const decision = () => byId("decision").dataset;
document.documentElement.classList.add("js");
const texts = JSON.parse(document.body.dataset.texts);
const say = (text) => texts[text] ?? text;
const words = (error) => texts[`error.${error.code}`]?.replace("{detail}", error.message) ?? error.message;

// --- the chosen territory ---------------------------------------------------------------------------------------------

let refreshing = Promise.resolve();
const lang = new URLSearchParams(location.search).get("lang") ?? "";
let dismissed = new URLSearchParams(location.search).get("dismissed") ?? "";

function address(territory, extra = {}) {
  const query = new URLSearchParams({ territory, assistant: byId("assistant").value, ...(lang && { lang }), ...(dismissed && { dismissed }), ...extra });
  return `/?${query}`;
}

// Fetch the page and replace its parts. Calls run one after another, so that the last one decides what is shown.
function refresh(territory = decision().territory) {
  refreshing = refreshing.then(() => fetchParts(territory)).catch(reportError);
  return refreshing;
}

async function fetchParts(territory) {
  const url = address(territory, { question: byId("question").value });
  const response = await fetch(url, { headers: { accept: "text/html" } }).catch(() => null);
  if (response?.status !== 200 && response?.status !== 404) { setOffline(true); return; }
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  setOffline(false);
  const focused = document.activeElement;
  const isNewVersion = versionOf(page) !== versionOf(document);
  const opened = [...document.querySelectorAll("details[open]")].map((one) => one.querySelector("summary").textContent);
  for (const id of ["change-region", "change-deployment"]) {
    if (byId(id)?.dataset.touched) keepChoice(page.getElementById(id), byId(id).value);
  }
  for (const part of document.querySelectorAll(".part")) {
    const fresh = page.getElementById(part.id);
    if (!fresh.isEqualNode(part)) part.replaceWith(document.adoptNode(fresh));
  }
  for (const one of document.querySelectorAll("details:not([open])")) {
    if (opened.includes(one.querySelector("summary").textContent)) one.open = true;
  }
  updateAreas(page);
  const changes = [...byId("effect").querySelectorAll(".changes h4, .changes > p:not(.members)")];
  if (isNewVersion && changes.length) announce(changes.map((each) => each.textContent).join(". "));
  document.title = page.title;
  const ask = byId("ask").querySelector("button");
  const freshAsk = page.getElementById("ask").querySelector("button");
  document.querySelector("#ask .from").textContent = page.querySelector("#ask .from").textContent;
  ask.disabled = freshAsk.disabled;
  if (!focused.isConnected) refocus(focused);
  noteDeadlines();
  showAges();
}

function keepChoice(select, value) {
  const option = [...(select?.options ?? [])].find((one) => one.value === value);
  if (!option) return;
  for (const one of select.options) one.toggleAttribute("selected", one === option);
  select.dataset.touched = "1";
}

const versionOf = (root) => root.querySelector("#config code").textContent;

function refocus(gone) {
  const chosen = gone.closest("[data-choose]") && document.querySelector(`.area[data-choose="${CSS.escape(gone.dataset.choose)}"]`);
  (gone.id ? byId(gone.id) : chosen)?.focus({ preventScroll: true });
}

async function choose(territory) {
  await refresh(territory);
  const { territory: code } = decision();
  if (code) {
    history.pushState(null, "", address(code));
    byId("territory").value = byId("decision-title").textContent;
    announce(byId("decision").querySelector(".verdict")?.textContent.trim() ?? "");
    show(byId("decision"));
  }
}

const announce = (text) => { byId("announce").textContent = text; };
const show = (part) => part.scrollIntoView({ block: "nearest" }); // on a small screen it may be above the map
const setOffline = (isOffline) => { byId("offline").hidden = !isOffline; };

document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-choose]");
  const view = event.target.closest("[data-box]");
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (link && !link.closest("#map")) {
    event.preventDefault();
    choose(link.dataset.choose);
  } else if (view?.closest(".views")) {
    event.preventDefault();
    setBox(view.dataset.box.split(" ").map(Number));
  }
});
byId("find").addEventListener("submit", (event) => { event.preventDefault(); choose(byId("territory").value); });
byId("territory").addEventListener("focus", (event) => event.target.select());
document.addEventListener("submit", async (event) => {
  if (event.target.id !== "dismiss") return;
  event.preventDefault();
  dismissed = event.target.elements.dismissed.value;
  await refresh();
  history.replaceState(null, "", address(decision().territory));
  byId("map").querySelector('.area[tabindex="0"]').focus({ preventScroll: true });
});
byId("question").addEventListener("change", () => refresh());
window.addEventListener("popstate", () => refresh(new URLSearchParams(location.search).get("territory") ?? ""));

// --- ask --------------------------------------------------------------------------------------------------------------

let asking = false;

byId("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (asking || byId("ask").querySelector("button").disabled) return;
  asking = true;
  const button = byId("ask").querySelector("button");
  button.setAttribute("aria-disabled", "true"); // a disabled button would lose the focus
  byId("result").hidden = false;
  byId("answer").textContent = "";
  for (const id of ["referral", "use"]) byId(id).textContent = "";
  for (const id of ["refusal", "arrived-box"]) byId(id).hidden = true;
  byId("headers").replaceChildren();
  byId("attempts").replaceChildren();
  show(byId("result"));
  const started = performance.now();
  const ticking = setInterval(() => showTotal(`${say("waiting for")} ${seconds(performance.now() - started)}`), 100);
  let requestId = null;
  try {
    requestId = await ask(byId("question").value);
  } catch (error) {
    showRefusal(`${say("The connection failed:")} ${error.message}`);
  } finally {
    clearInterval(ticking);
    byId("answer").classList.remove("live");
    showTotal("");
    asking = false;
    button.removeAttribute("aria-disabled");
  }
  if (requestId) await showAttempts(requestId);
  if (byId("ask").contains(document.activeElement)) show(byId("total"));
  refresh();
});

const seconds = (milliseconds) => `${(milliseconds / 1000).toFixed(1)} s`;
const showTotal = (text) => { byId("total").textContent = text; };

function showRefusal(text) {
  byId("refusal").textContent = text;
  byId("refusal").hidden = false;
}

// Send the question as every client does, and show the answer as it arrives. Return the id of the request.
async function ask(question) {
  const { territory, assistant, header } = decision();
  const person = byId("person")?.selectedOptions[0];
  const place = person?.value ? { "x-gateway-claim": await claimOf(person.dataset) } : { [header]: territory };
  // A user of the choice goes on with a conversation, so that the notice at its beginning is not due again.
  const before = person?.value ? [{ role: "user", content: "Hello!" }, { role: "assistant", content: "Hello." }] : [];
  const response = await fetch("/v1/chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json", ...place },
    body: JSON.stringify({ model: assistant, stream: true, messages: [...before, { role: "user", content: question }] }),
  });
  showHeaders(response.headers);
  showUse(response.headers.get("x-gateway-use"));
  const requestId = response.headers.get("x-request-id");
  if (!response.ok) {
    const { error } = await response.json();
    showRefusal(`${response.status} ${error.code}${say(": ")}${words(error)}${error.reason ? `${say(" (")}${say("reason")}${say(": ")}${texts[`reason.${error.reason}`] ?? error.reason}${say(")")}` : ""}`);
    showReferral(error.crisis);
    const allowed = error.age?.allowed_at ? `${say("Allowed again at")} ${error.age.allowed_at}` : "";
    byId("referral").append([error.user_message, allowed].filter(Boolean).join("\n"));
    return requestId;
  }
  const answer = byId("answer");
  answer.classList.add("live");
  for await (const data of eventsOf(response.body)) {
    if (data === "[DONE]") break;
    const event = JSON.parse(data);
    if (event.error) showRefusal(`${say("The answer broke off.")} ${event.error.code}: ${words(event.error)}`);
    showReferral(event.x_gateway?.crisis);
    for (const choice of event.choices ?? []) answer.append(choice.delta?.content ?? "");
  }
  await showArrived(response.headers.get("x-gateway-deployment"));
  return requestId;
}

// The demo signs a claim of a user, as the login of an operator does.
async function claimOf({ region, band }) {
  const response = await post("/console/claim", { region, band });
  const { claim, error } = await response.json();
  if (error) throw new Error(error.message);
  return claim;
}

const post = (path, body) => fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

function showUse(header) {
  const use = Object.fromEntries((header ?? "").split("; ").map((part) => part.split("=")));
  const left = (rule, text) => use[`${rule}-limit`] && `${say(text)}: ${Math.max(0, Math.floor((use[`${rule}-limit`] - use[rule]) / 60))} ${say("minutes")}`;
  byId("use").textContent = [left("session", "Time left in this session"), left("day", "Time left today")].filter(Boolean).join(" · ");
}

function showReferral(crisis) {
  if (!crisis) return;
  const numbers = Object.entries(crisis.helplines).map(([kind, number]) => `${kind} ${number}`);
  byId("referral").textContent = `${say("Referral")}${say(": ")}${[...crisis.categories, ...numbers].join(say(", "))}`;
}

// Show the request as the simulator of the provider got it.
async function showArrived(deployment) {
  const response = deployment && await fetch(`/console/arrived?${new URLSearchParams({ deployment })}`);
  const { body } = response?.ok ? await response.json() : {};
  if (!body) return;
  byId("arrived-title").textContent = `${say("Arrived at")} ${deployment}`;
  byId("arrived").textContent = body;
  byId("arrived-box").hidden = false;
}

async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data:")) yield line.slice(5).trim();
  }
}

function showHeaders(headers) {
  for (const [name, value] of headers) {
    if (!name.startsWith("x-gateway-") && name !== "x-request-id") continue;
    const row = document.createElement("div");
    row.append(element("dt", name), element("dd", value));
    if (name === "x-request-id") { // the view of this request
      const link = element("a", value);
      link.href = `/console/requests?${new URLSearchParams({ id: value })}`;
      row.lastChild.replaceChildren(link);
    }
    byId("headers").append(row);
  }
}

function element(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

async function showAttempts(requestId) {
  const response = await fetch(`/console/requests/${encodeURIComponent(requestId)}?lang=${document.documentElement.lang}`);
  if (!response.ok) { showTotal(say("The attempts of this request are not known.")); return; }
  const shown = await response.json();
  const share = (milliseconds) => `${(100 * milliseconds) / Math.max(shown.total_ms, 1)}%`;
  const rows = shown.rows.map((row) => {
    const item = document.createElement("li");
    item.append(element("b", row.deployment), " ", element("span", row.words, row.outcome === "ok" ? "" : "failed"));
    const bar = element("span", "", "bar");
    bar.setAttribute("aria-hidden", "true");
    const parts = [[row.start_ms, row.waited_ms, row.outcome === "ok" || row.outcome === "lost" ? "waiting" : "failing"]];
    if (row.end_ms > row.waited_ms) parts.push([row.waited_ms, row.end_ms, "text"]);
    for (const [from, to, className] of parts) {
      const part = element("i", "", className);
      part.style.left = share(from);
      part.style.width = share(to - from);
      bar.append(part);
    }
    item.append(bar);
    if (row.next) item.append(element("span", `→ ${row.next}`, "next"));
    return item;
  });
  byId("attempts").replaceChildren(...rows, ...shown.skipped.map((text) => element("li", text)));
  showTotal(shown.rows.length ? `${shown.rows.length} ${say(shown.rows.length === 1 ? "attempt" : "attempts")}, ${seconds(shown.total_ms)} ${say("in total")}` : say("No deployment was asked."));
}

// --- faults, breakers and the configuration ---------------------------------------------------------------------------

async function switchFaults(method, body) {
  const response = await fetch("/console/faults", {
    method,
    headers: body ? { "content-type": "application/json" } : {},
    body: body && JSON.stringify(body),
  });
  if (!response.ok) announce((await response.json()).error.message);
  await refresh();
}

document.addEventListener("change", (event) => {
  const { fault: deployment } = event.target.dataset;
  if (deployment) switchFaults("PUT", { deployment, fault: event.target.value || null });
  if (event.target.closest("#change-form")) event.target.dataset.touched = "1";
  if (event.target.id === "assistant") choose(decision().territory);
});
document.addEventListener("click", (event) => {
  if (event.target.id === "heal") switchFaults("DELETE");
  if (event.target.id === "later") post("/console/clock", { later_s: 1200 }).then(() => announce(event.target.textContent));
  if (event.target.id === "crisis") {
    byId("question").value = "This is a simulated-crisis.";
    byId("ask").requestSubmit();
  }
  const { copy } = event.target.dataset;
  if (copy) navigator.clipboard.writeText(byId(copy).textContent).then(() => { event.target.textContent = say("Copied"); });
});

async function edit(method, body) {
  const response = await fetch(`/console/configuration?lang=${document.documentElement.lang}`, {
    method,
    headers: body ? { "content-type": "application/json" } : {},
    body: body && JSON.stringify(body),
  });
  const problem = response.ok ? "" : (await response.json()).error.message;
  await refresh();
  byId("change-problem").textContent = problem;
  byId("change-problem").hidden = !problem;
}
document.addEventListener("submit", (event) => {
  if (event.target.id !== "change-form") return;
  event.preventDefault();
  const { assistant } = decision();
  edit("PUT", { assistant, region: byId("change-region").value, deployment: byId("change-deployment").value });
});
document.addEventListener("click", (event) => { if (event.target.id === "undo") edit("DELETE"); });

function noteDeadlines() {
  for (const one of document.querySelectorAll(".countdown:not([data-until])")) {
    one.dataset.until = performance.now() + 1000 * Number(one.dataset.forS);
  }
}

function showAges() {
  const since = document.querySelector("[data-age]");
  const age = Math.max(0, Math.round((Date.now() - Date.parse(since.dateTime)) / 1000));
  since.title = since.dateTime;
  const [words, n] = age < 60 ? ["active {n} s ago", age] : age < 3600 ? ["active {n} min ago", Math.floor(age / 60)] : ["active {n} h ago", Math.floor(age / 3600)];
  since.textContent = say(words).replace("{n}", n);
}

setInterval(() => {
  let isOver = false;
  for (const one of document.querySelectorAll(".countdown")) {
    const left = (Number(one.dataset.until) - performance.now()) / 1000;
    one.textContent = left > 0 ? `${Math.ceil(left)} s` : say("a moment");
    if (left <= 0 && !one.dataset.over) { one.dataset.over = "1"; isOver = true; }
  }
  if (isOver) setTimeout(refresh, 300);
  showAges();
}, 500);

// A browser opens few connections to one host. One page holds the stream of events, and passes them to the others.
const channel = new BroadcastChannel("gateway-console");
channel.addEventListener("message", () => refresh());
navigator.locks.request("gateway-console", () => new Promise(() => {
  let wasLost = false;
  const source = new EventSource("/console/events?kinds=config,health,faults");
  const pass = () => { channel.postMessage("changed"); refresh(); };
  for (const kind of ["config", "health", "faults"]) source.addEventListener(kind, pass);
  source.addEventListener("open", () => { if (wasLost) pass(); wasLost = false; });
  source.addEventListener("error", () => {
    if (!wasLost) channel.postMessage("lost"); // the other pages find out by asking for a fresh page
    wasLost = true;
    setOffline(true);
  });
}));

noteDeadlines();
showAges();
