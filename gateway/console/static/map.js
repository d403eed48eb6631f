"use strict";
// The map: zoom and drag, the marks of territories that are too small to fill, clusters of marks, and the keyboard.
// Areas are links that the server renders; without this script they work as such.

const map = byId("map");
const SVG = "http://www.w3.org/2000/svg";
const whole = document.querySelector(".views a").dataset.box.split(" ").map(Number);
const areas = [...map.querySelectorAll(".area")];
const places = new Map(areas.map((area) => {
  const [x, y, size] = area.dataset.place.split(" ").map(Number);
  return [area, { area, x, y, size, mark: area.querySelector(".mark") }];
}));
const small = () => (map.clientWidth < 600 ? 1.8 : 3); // a territory whose largest part has fewer pixels in square gets a mark
const SIDE = 26; // of a mark, with the gap to the next one
const DEEPEST = 128;
let box = map.getAttribute("viewBox").split(" ").map(Number);

function setBox([x, y, width, height]) {
  const keep = (low, size, most) => Math.min(Math.max(low, 0), most - size);
  box = [keep(x, width, whole[2]), keep(y, height, whole[3]), width, height];
  map.setAttribute("viewBox", box.join(" "));
  map.toggleAttribute("data-panned", width < whole[2]);
  for (const one of document.querySelectorAll(".views a")) {
    one.toggleAttribute("aria-current", one.dataset.box === box.map(Math.round).join(" "));
  }
  drawLater();
}

let isDrawing = false;
function drawLater() {
  if (!isDrawing) requestAnimationFrame(() => { isDrawing = false; draw(); });
  isDrawing = true;
}

// Give marks, patterns and labels the same size on every scale, and place the marks so that none covers another.
function draw() {
  const frame = map.getBoundingClientRect();
  const unit = box[2] / frame.width;
  for (const tile of map.querySelectorAll(".tile")) tile.setAttribute("patternTransform", `scale(${unit})`);
  const placed = [...map.querySelectorAll("#labels text")].map((text) => {
    const [x, y] = text.dataset.at.split(" ").map(Number);
    text.setAttribute("transform", `translate(${x} ${y}) scale(${unit})`);
    const { width, height } = text.getBBox();
    return { x: (x - box[0]) / unit, y: (y - box[1]) / unit, width: width + 4, height };
  });
  if (getComputedStyle(byId("labels")).display === "none") placed.length = 0;
  const labels = placed.length;
  const isInView = ({ x, y }) => x >= box[0] && y >= box[1] && x <= box[0] + box[2] && y <= box[1] + box[3];
  const alone = [];
  const tiny = [];
  for (const place of places.values()) {
    place.mark?.setAttribute("display", "none");
    if (!place.mark || !isInView(place)) continue;
    if (place.size / unit >= (place.area.matches(".pinned") ? SIDE : small())) continue;
    const mark = { x: (place.x - box[0]) / unit, y: (place.y - box[1]) / unit, width: SIDE, height: SIDE, members: [place] };
    (place.area.matches(".pinned, .chosen, :focus") ? alone : tiny).push(mark);
  }
  const edge = [frame.width, frame.height].map((length) => length - SIDE / 2);
  for (const mark of [...alone, ...tiny]) {
    mark.from = [mark.x, mark.y];
    mark.x = Math.min(Math.max(mark.x, SIDE / 2), edge[0]);
    mark.y = Math.min(Math.max(mark.y, SIDE / 2), edge[1]);
  }
  const marks = [...alone, ...(whole[2] / box[2] < DEEPEST / 2 ? clustered(tiny) : tiny)];
  for (const mark of marks) placed.push(placedFree(mark, placed, edge));
  placed.splice(0, labels);
  byId("clusters").replaceChildren(...placed.filter(({ members }) => members.length > 1).map((one) => clusterElement(one, unit)));
  for (const { x, y, from, members } of placed) {
    if (members.length > 1) continue;
    const { mark } = members[0];
    mark.removeAttribute("display");
    mark.setAttribute("transform", placeOnMap(x, y, unit));
    mark.querySelector(".leader").setAttribute("d", leader(x, y, from));
  }
}

const placeOnMap = (x, y, unit) => `translate(${box[0] + x * unit} ${box[1] + y * unit}) scale(${unit})`;
const overlap = (one, other) =>
  2 * Math.abs(one.x - other.x) < one.width + other.width && 2 * Math.abs(one.y - other.y) < one.height + other.height;
const leader = (x, y, [x2, y2]) => (Math.hypot(x - x2, y - y2) > 4 ? `M0,0L${x2 - x},${y2 - y}` : "");

// Join marks that overlap, until none does.
function clustered(marks) {
  const left = [...marks];
  for (let i = 0; i < left.length; i += 1) {
    const j = left.findIndex((other, k) => k !== i && overlap(left[i], other));
    if (j < 0) continue;
    const [one, other] = [left[i], left[j]];
    const [m, n] = [one.members.length, other.members.length];
    const mean = (a, b) => (a * m + b * n) / (m + n);
    const joint = { ...one, x: mean(one.x, other.x), y: mean(one.y, other.y), members: [...one.members, ...other.members] };
    joint.from = [joint.x, joint.y];
    left[Math.min(i, j)] = joint;
    left.splice(Math.max(i, j), 1);
    i = -1;
  }
  return left;
}

// Move a mark to the nearest free place around its territory.
function placedFree(mark, placed, edge) {
  for (let distance = 0; distance < 20 * SIDE; distance += 6) {
    for (const turn of [0, 30, 60, 90, 120, 150, 180, -30, -150, -60, -120, -90]) {
      const angle = (turn * Math.PI) / 180;
      const moved = { ...mark, x: mark.x + distance * Math.cos(angle), y: mark.y + distance * Math.sin(angle) };
      const isInside = [[moved.x, edge[0]], [moved.y, edge[1]]].every(([value, most]) => value >= SIDE / 2 && value <= most);
      if ((isInside || !distance) && !placed.some((other) => overlap(moved, other))) return moved;
    }
  }
  return mark;
}

function drawn(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// A mark with visible text has a label, because a title would repeat the text in its name.
const labelOf = (area) => area.getAttribute("aria-label") ?? area.querySelector("title").textContent;
const nameByCode = new Map([...byId("names").options].map((option) => [option.textContent, option.value]));

function clusterElement({ x, y, from, members }, unit) {
  const looks = new Set(members.map(({ area }) => area.getAttribute("fill").match(/k\d+/)[0]));
  const names = `${members.length}: ${members.map(({ area }) => nameByCode.get(area.dataset.choose)).join(", ")}`;
  const group = drawn(
    "g",
    {
      class: `cluster ${looks.size === 1 ? [...looks][0] : ""}`, role: "button", tabindex: -1,
      transform: placeOnMap(x, y, unit), "data-members": members.map(({ area }) => area.dataset.choose).join(" "),
    },
    drawn("title", {}, names),
    drawn("path", { class: "leader", d: leader(x, y, from) }),
    drawn("rect", { class: "target", x: -12, y: -12, width: 24, height: 24 }),
    drawn("circle", { r: 10.5 }),
    drawn("text", {}, String(members.length)),
  );
  group.addEventListener("click", () => open(members));
  group.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") open(members); });
  return group;
}

// Zoom until the members of a cluster lie apart, or into it as far as the map goes.
function open(members) {
  const [xs, ys] = [members.map(({ x }) => x), members.map(({ y }) => y)];
  const middle = [xs, ys].map((values) => (Math.min(...values) + Math.max(...values)) / 2);
  const ratio = whole[2] / whole[3];
  const room = 1.3 * Math.max(Math.max(...xs) - Math.min(...xs), (Math.max(...ys) - Math.min(...ys)) * ratio);
  const width = Math.max(Math.min(room, box[2] / 2), whole[2] / DEEPEST);
  setBox([middle[0] - width / 2, middle[1] - width / ratio / 2, width, width / ratio]);
}

// Zoom by a factor around a point of the map, which stays where it is.
function zoom(factor, [x, y] = centreOfView()) {
  const width = Math.min(Math.max(box[2] / factor, whole[2] / DEEPEST), whole[2]);
  const part = width / box[2];
  setBox([x - (x - box[0]) * part, y - (y - box[1]) * part, width, (width * whole[3]) / whole[2]]);
}

function centreOfView() {
  const chosen = places.get(map.querySelector(".chosen"));
  const middle = [box[0] + box[2] / 2, box[1] + box[3] / 2];
  if (chosen) setBox([chosen.x - box[2] / 2, chosen.y - box[3] / 2, box[2], box[3]]);
  return chosen ? [chosen.x, chosen.y] : middle;
}
byId("zoom-in").addEventListener("click", () => zoom(2));
byId("zoom-out").addEventListener("click", () => zoom(0.5));

function positionOf(event) {
  const frame = map.getBoundingClientRect();
  const unit = box[2] / frame.width;
  return [box[0] + (event.clientX - frame.left) * unit, box[1] + (event.clientY - frame.top) * unit];
}

// At the whole world, scrolling down scrolls the page.
map.addEventListener("wheel", (event) => {
  if (box[2] >= whole[2] && event.deltaY > 0) return;
  event.preventDefault();
  zoom(Math.exp(-Math.max(-200, Math.min(200, event.deltaY * (event.deltaMode ? 30 : 1))) / 300), positionOf(event));
}, { passive: false });

// A finger does not hit a territory of a few pixels: it reaches farther on the sea, and a little on other land.
function smallNear(event, area) {
  const reach = area ? SIDE / 3 : SIDE / 2;
  const unit = box[2] / map.getBoundingClientRect().width;
  const [x, y] = positionOf(event);
  const away = (place) => Math.hypot(place.x - x, place.y - y) / unit;
  // Two small ones may share an island: the one under the finger is meant if its middle is the nearer one.
  let near = null, least = places.has(area) ? Math.min(reach, away(places.get(area))) : reach;
  for (const place of places.values()) {
    if (place.size / unit < reach && away(place) < least) [near, least] = [place, away(place)];
  }
  return near?.area;
}

map.addEventListener("click", (event) => {
  if (event.target.closest?.(".cluster, .mark")) return pick(event, event.target.closest(".area"));
  const area = event.target.closest?.(".area");
  pick(event, smallNear(event, area) ?? area);
});

function pick(event, area) {
  if (area && (event.ctrlKey || event.metaKey || event.shiftKey)) return;
  event.preventDefault();
  if (area && !moved) choose(area.dataset.choose);
}

// One pointer drags the map, two of them zoom.
const pointers = new Map();
let moved = false;
let grip = null;
function take() {
  const points = [...pointers.values()];
  const middle = [0, 1].map((axis) => points.reduce((sum, point) => sum + point[axis], 0) / points.length);
  grip = points.length ? { box, middle, spread: points.length > 1 ? Math.hypot(points[0][0] - points[1][0], points[0][1] - points[1][1]) : 0 } : null;
}
map.addEventListener("pointerdown", (event) => {
  if (!pointers.size) moved = false;
  pointers.set(event.pointerId, [event.clientX, event.clientY]);
  take();
});
window.addEventListener("pointermove", (event) => {
  if (!pointers.has(event.pointerId)) return;
  pointers.set(event.pointerId, [event.clientX, event.clientY]);
  const held = grip;
  take();
  const isPinch = grip.spread > 0;
  const [dx, dy] = [grip.middle[0] - held.middle[0], grip.middle[1] - held.middle[1]];
  if ((!isPinch && held.box[2] >= whole[2]) || (!moved && !isPinch && Math.hypot(dx, dy) < 6)) { grip = held; return; }
  moved = true;
  const frame = map.getBoundingClientRect();
  const unit = held.box[2] / frame.width;
  const width = Math.min(Math.max(isPinch ? (held.box[2] * held.spread) / grip.spread : held.box[2], whole[2] / DEEPEST), whole[2]);
  const part = width / held.box[2];
  const [x, y] = [(held.middle[0] - frame.left) * unit, (held.middle[1] - frame.top) * unit];
  setBox([held.box[0] + x - (x + dx * unit) * part, held.box[1] + y - (y + dy * unit) * part, width, (width * whole[3]) / whole[2]]);
  grip.box = box;
});
for (const name of ["pointerup", "pointercancel"]) {
  window.addEventListener(name, (event) => { if (pointers.delete(event.pointerId)) take(); });
}
map.addEventListener("dragstart", (event) => event.preventDefault());

const directions = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
map.addEventListener("keydown", (event) => {
  const here = places.get(event.target.closest?.(".area"));
  const direction = directions[event.key];
  if (!here || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Enter" || event.key === " ") {
    choose(here.area.dataset.choose);
  } else if (event.key === "+" || event.key === "=") {
    zoom(2, [here.x, here.y]);
  } else if (event.key === "-") {
    zoom(0.5, [here.x, here.y]);
  } else if (event.key === "0" || event.key === "Escape") {
    setBox(whole);
  } else if (direction) {
    let best = null;
    for (const other of places.values()) {
      const [dx, dy] = [other.x - here.x, other.y - here.y];
      const ahead = dx * direction[0] + dy * direction[1];
      const aside = Math.abs(dx * direction[1]) + Math.abs(dy * direction[0]);
      if (ahead > 0 && ahead + 2 * aside < (best?.cost ?? Infinity)) best = { cost: ahead + 2 * aside, other };
    }
    if (best) focusArea(best.other);
  } else {
    return;
  }
  event.preventDefault();
});

function focusArea({ area, x, y }) {
  for (const one of map.querySelectorAll('.area[tabindex="0"]')) one.setAttribute("tabindex", "-1");
  area.setAttribute("tabindex", "0");
  const isOutside = x < box[0] || y < box[1] || x > box[0] + box[2] || y > box[1] + box[3];
  if (isOutside) setBox([x - box[2] / 2, y - box[3] / 2, box[2], box[3]]);
  area.focus({ preventScroll: true });
  drawLater();
  announce(labelOf(area));
}

// Take over who answers from a fresh page. The areas stay, so that neither the focus nor the picture is lost.
function updateAreas(page) {
  const fresh = page.querySelectorAll("#areas .area");
  areas.forEach((area, number) => {
    for (const name of ["class", "href", "fill", "data-first", "aria-label", "aria-current", "tabindex"]) {
      const value = fresh[number].getAttribute(name);
      if (value === null) area.removeAttribute(name);
      else if (area.getAttribute(name) !== value) area.setAttribute(name, value);
    }
    const title = area.querySelector("title");
    if (title) title.textContent = labelOf(fresh[number]);
  });
  drawLater();
}

new ResizeObserver(drawLater).observe(map);
draw();
setBox(box);
