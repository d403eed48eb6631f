// The live parts of the views. Every view works without this file.
const live = document.getElementById("live");
if (live) followRequests();
const deployments = document.getElementById("deployments");
if (deployments) followDeployments();

// On a narrow screen each row is a card, whose cells name their columns. Roles keep it a table for screen readers.
function asCards(table) {
  const heads = [...table.querySelectorAll("thead th")].map((one) => one.textContent.trim());
  const roles = { thead: "rowgroup", tbody: "rowgroup", tr: "row", td: "cell", "thead th": "columnheader", "tbody th": "rowheader" };
  table.classList.add("cards");
  table.setAttribute("role", "table");
  for (const [selector, role] of Object.entries(roles)) for (const one of table.querySelectorAll(selector)) one.setAttribute("role", role);
  for (const row of table.querySelectorAll("tbody tr")) [...row.cells].forEach((cell, number) => { cell.dataset.label = heads[number] ?? ""; });
}
for (const table of document.querySelectorAll(".scroll table")) asCards(table);

// Send a form when the gateway can be reached, so that no error page of the browser replaces what was typed.
document.addEventListener("submit", async (event) => {
  const form = event.target, { isWaiting, isReached } = form.dataset;
  if (isReached) return;
  event.preventDefault();
  if (isWaiting) return;
  form.dataset.isWaiting = "yes";
  const lost = document.getElementById("lost"), icon = document.querySelector("link[rel=icon]").href;
  const isReachable = () => fetch(icon, { cache: "no-store" }).then(() => true, () => false);
  while (!(await isReachable())) {
    lost.hidden = false;
    await new Promise((resolve) => { setTimeout(resolve, 2000); });
  }
  lost.hidden = true;
  delete form.dataset.isWaiting;
  form.dataset.isReached = "yes";
  form.requestSubmit(event.submitter);
  delete form.dataset.isReached;
});

// Fetch the page again when a breaker or the configuration changes, at most every five seconds.
function followDeployments() {
  let waiting = null, last = 0;
  const refresh = async () => {
    const response = await fetch(location.href).catch(() => null);
    waiting = null;
    last = Date.now();
    if (!response?.ok || response.redirected) return;
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html").getElementById("deployments");
    deployments.querySelectorAll("details").forEach((one, number) => { fresh.querySelectorAll("details")[number]?.toggleAttribute("open", one.open); });
    deployments.replaceChildren(...fresh.childNodes);
    deployments.querySelectorAll(".scroll table").forEach(asCards);
  };
  const events = eventsFor(deployments);
  for (const kind of ["health", "config"]) events.addEventListener(kind, () => { waiting ??= setTimeout(refresh, Math.max(0, last + 5000 - Date.now())); });
}

function eventsFor(part) {
  const lost = document.getElementById("lost"), events = new EventSource(part.dataset.events);
  events.addEventListener("open", () => { lost.hidden = true; });
  // The browser connects again by itself. A refused connection, as after a sign-out, is not repeated.
  events.addEventListener("error", () => { lost.hidden = false; });
  return events;
}

function followRequests() {
  const filters = JSON.parse(live.dataset.filters), columns = JSON.parse(live.dataset.columns);
  const most = Number(live.dataset.most), body = document.querySelector("#requests tbody");
  const pause = document.getElementById("pause"), rate = document.getElementById("rate");
  let isPaused = false;
  live.hidden = false;
  pause.addEventListener("click", () => {
    isPaused = !isPaused;
    pause.setAttribute("aria-pressed", String(isPaused));
  });
  const events = eventsFor(live);
  events.addEventListener("requests", (event) => {
    const news = JSON.parse(event.data);
    rate.textContent = news.per_s;
    if (isPaused) return;
    for (const one of news.requests) {
      if (Object.entries(filters).some(([name, value]) => one[name] !== value)) continue;
      if (body.querySelector(`[data-id="${CSS.escape(one.request_id)}"]`)) continue;
      body.prepend(row(one, columns));
      document.getElementById("empty")?.remove();
      asCards(document.getElementById("requests"));
    }
    while (body.children.length > most) body.lastElementChild.remove();
  });
}

function row(one, columns) {
  const tr = document.createElement("tr");
  tr.dataset.id = one.request_id;
  tr.className = "new";
  for (const name of columns) {
    const td = tr.insertCell();
    if (name === "request_id") {
      const link = td.appendChild(document.createElement("a"));
      link.href = `${location.pathname}?${new URLSearchParams({ id: one.request_id })}`;
      link.textContent = one.request_id.slice(0, 24);
    } else if (name === "at") {
      const time = td.appendChild(document.createElement("time"));
      time.dateTime = one.at;
      time.textContent = `${one.at.slice(11, 19)} UTC`;
    } else if (name === "outcome") {
      const word = td.appendChild(document.createElement("span"));
      word.className = `outcome ${one.outcome === "ok" ? "good" : "bad"}`;
      word.textContent = JSON.parse(live.dataset.outcomes)[one.outcome] ?? one.outcome;
      if (one.code) {
        td.append(" ");
        td.appendChild(document.createElement("code")).textContent = one.code;
      }
    } else {
      const value = name === "attempts" ? one.attempts.length : name === "cost" ? money(one.cost) : one[name];
      if (["first_ms", "total_ms", "status", "attempts", "cost"].includes(name)) td.className = "number";
      td.textContent = typeof value === "number" ? value.toLocaleString(document.documentElement.lang) : value ?? "–";
    }
  }
  return tr;
}

function money(cost) {
  if (!cost) return null;
  const style = { style: "currency", currency: cost.currency, maximumFractionDigits: 9 };
  return new Intl.NumberFormat(document.documentElement.lang, style).format(Number(cost.amount));
}
