'use strict';
const at = id => document.getElementById(id);
const canvas = document.querySelector('canvas'), pen = canvas.getContext('2d');
const STALE = 2000;               // ms without a new picture after which the page says so
const CLOSEST = 16;               // zoom
const TAP = 8;                    // CSS pixels that a finger may slip in a tap
const HANDLE = 24;                // CSS pixels around a corner in which it is taken hold of
const SMALLEST = 4;               // pixels of the picture that a box has at least
const HINT = 'Tap the object to follow, or draw a box around it.';
const WORDS = {'no target': 'No target', tracking: 'Following', uncertain: 'Following, unsure', lost: 'Lost, looking for it',
               paused: 'Paused', silent: 'No word from the tracker'};

let shown = null, waiting = null; // pictures: {bitmap, number, stamp, width, height, state, id, score}
let view = {zoom: 1, x: .5, y: .5};  // the picture's point, in parts of it, in the middle of the canvas
let choice = null;                // {box} in pixels of the picture: what is being drawn or adjusted
let gesture = null;               // what the pointers are doing: {kind, ...}
let asking = 0;                   // requests under way for which the picture stands still
let latest = performance.now();
let token = sessionStorage.getItem('token') || '';
if (location.hash.length > 1) {
  token = decodeURIComponent(location.hash.slice(1));
  sessionStorage.setItem('token', token);
  history.replaceState(null, '', location.pathname);
}

// Geometry: the canvas in CSS pixels, the picture in its own

function scale() {                // CSS pixels of a pixel of the picture
  return view.zoom * Math.min(canvas.clientWidth / shown.width, canvas.clientHeight / shown.height);
}

function toScreen([x, y]) {
  const s = scale();
  return [(x - view.x * shown.width) * s + canvas.clientWidth / 2, (y - view.y * shown.height) * s + canvas.clientHeight / 2];
}

function toPicture([x, y]) {      // inside of the picture
  const s = scale();
  return [[(x - canvas.clientWidth / 2) / s + view.x * shown.width, shown.width],
          [(y - canvas.clientHeight / 2) / s + view.y * shown.height, shown.height]]
    .map(([place, size]) => Math.min(Math.max(place, 0), size));
}

function place(event) {           // of a pointer on the canvas
  const frame = canvas.getBoundingClientRect();
  return [event.clientX - frame.left, event.clientY - frame.top];
}

function look(zoom, point, [x, y]) {  // zoom so that a point of the picture comes to that place of the canvas
  view.zoom = Math.min(Math.max(zoom, 1), CLOSEST);
  const s = scale();
  view.x = (point[0] - (x - canvas.clientWidth / 2) / s) / shown.width;
  view.y = (point[1] - (y - canvas.clientHeight / 2) / s) / shown.height;
  for (const [axis, room, size] of [['x', canvas.clientWidth, shown.width], ['y', canvas.clientHeight, shown.height]]) {
    const half = Math.min(room / s / size / 2, .5);  // nothing but the picture is looked at
    view[axis] = Math.min(Math.max(view[axis], half), 1 - half);
  }
  render();
}

function zoomBy(factor, at = [canvas.clientWidth / 2, canvas.clientHeight / 2]) {
  if (shown) look(view.zoom * factor, toPicture(at), at);
}

function rectangle([ax, ay], [bx, by]) {
  return [Math.min(ax, bx), Math.min(ay, by), Math.abs(ax - bx), Math.abs(ay - by)];
}

function corners([x, y, w, h]) { return [[x, y], [x + w, y], [x + w, y + h], [x, y + h]]; }

// What is seen

function render() {
  const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  if (!shown) return;
  const [left, top] = toScreen([0, 0]), s = scale();
  pen.imageSmoothingEnabled = s * shown.width < 4 * shown.bitmap.width;
  pen.drawImage(shown.bitmap, left, top, s * shown.width, s * shown.height);
  if (!choice) return;
  const [a, , c] = corners(choice.box).map(toScreen), [x, y, w, h] = rectangle(a, c);
  pen.fillStyle = '#0006';
  pen.beginPath();
  pen.rect(0, 0, width, height);
  pen.rect(x, y, w, h);
  pen.fill('evenodd');
  pen.lineWidth = 4;
  pen.strokeStyle = '#000a';
  pen.strokeRect(x, y, w, h);
  pen.lineWidth = 2;
  pen.strokeStyle = '#fff';
  pen.strokeRect(x, y, w, h);
  if (gesture?.kind === 'draw') return;
  pen.fillStyle = '#fff';
  for (const [cx, cy] of [[x, y], [x + w, y], [x + w, y + h], [x, y + h]]) {
    pen.beginPath();
    pen.arc(cx, cy, 6, 0, 7);
    pen.fill();
  }
}

function report({state, id = '', score = ''}) {
  document.body.dataset.state = state;
  at('state').textContent = WORDS[state] ?? state;
  at('id').textContent = id;
  at('score').textContent = score;
  at('meter').firstChild.style.width = `${100 * (parseFloat(score) || 0)}%`;
  at('pause').textContent = state === 'paused' ? 'Resume' : 'Pause';
}

function frozen() { return choice !== null || asking > 0 || gesture?.kind === 'draw'; }

function paint(picture) {
  if (shown && (shown.width !== picture.width || shown.height !== picture.height)) view = {zoom: 1, x: .5, y: .5};
  shown = picture;
  report(picture);
  render();
}

function say(text, refused = false) {
  at('answer').textContent = text;
  at('answer').classList.toggle('refused', refused);
}

// What is asked for

async function send(path, options = {}) {
  const headers = {...options.headers, ...token && {Authorization: `Bearer ${token}`}};
  const response = await fetch(path, {...options, headers});
  const locked = response.status === 401;
  if (locked !== !at('login').hidden) {
    at('login').hidden = !locked;
    say(locked ? 'This page asks for its token.' : HINT, locked && token !== '');
  }
  if (!response.ok) throw new Error(await response.text());
  return response;
}

async function live() {
  for (let seen = 0; ;) {
    if (document.hidden) await new Promise(done => document.addEventListener('visibilitychange', done, {once: true}));
    try {
      const room = shown ? Math.ceil(scale() * shown.width * (devicePixelRatio || 1)) : canvas.clientWidth;
      const response = await send('picture', {headers: {Seen: seen, Width: room}});
      const news = JSON.parse(response.headers.get('Tracker'));
      const file = await response.blob();
      if (file.size) {
        seen = news.number;
        waiting = {...news, bitmap: await createImageBitmap(file)};
        latest = performance.now();
        if (!frozen()) paint(waiting);
      } else if (!frozen()) {
        report(news);
      }
      at('notice').textContent = performance.now() - latest > STALE ? 'No picture from the tracker' : '';
    } catch (error) {
      report({state: 'silent'});
      at('state').textContent = at('login').hidden ? 'No connection' : 'Locked';
      await new Promise(done => setTimeout(done, 1000));
    }
  }
}

async function ask(path, body = {}) {  // the answer, or null
  try {
    const response = await send(path, {method: 'POST', headers: {'Content-Type': 'application/json'},
                                       body: JSON.stringify(body)});
    const answer = await response.json();
    if (answer.message) say(answer.message, !answer.success);
    return answer;
  } catch (error) {
    say(`No connection: ${error.message}`, true);
    return null;
  }
}

function choose(box) {            // what is to be followed, before it is
  choice = box && {box};
  at('choosing').hidden = !box;
  at('steering').hidden = box !== null;
  if (box === null && waiting && !frozen()) paint(waiting);
  render();
}

async function tapped(point) {    // the tracker's side says which box that is
  asking++;                       // the picture that was tapped stays
  choose(null);
  const answer = await ask('propose', {stamp: shown.stamp, point});
  asking--;
  if (answer?.success) say(answer.message || 'Move the box and its corners to fit, then Follow.');
  choose(answer?.success ? answer.box : null);
}

async function follow(box) {
  const {stamp} = shown, id = at('name').value;
  choose(null);
  say('…');
  const answer = await ask('init', {stamp, box, id});
  if (answer?.success) at('name').value = '';
}

// Fingers and mouse: one draws a box or taps, two zoom and pan; the wheel zooms, its button or Shift pans

const pointers = new Map();

function began(event) {
  if (!shown || asking || event.pointerType === 'mouse' && event.button > 1) return;
  event.preventDefault();
  canvas.focus();
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, place(event));
  const start = place(event);
  if (pointers.size === 2) {
    if (gesture?.kind === 'draw') choice = gesture.before;
    gesture = pinch();
    return render();
  }
  if (pointers.size > 2) return;
  if (event.button === 1 || event.shiftKey) {
    gesture = {kind: 'pan', point: toPicture(start)};
    return;
  }
  if (choice) {
    const screen = corners(choice.box).map(toScreen);
    const corner = screen.findIndex(([x, y]) => Math.hypot(x - start[0], y - start[1]) < HANDLE);
    if (corner >= 0) {
      gesture = {kind: 'resize', fixed: corners(choice.box)[(corner + 2) % 4]};
      return;
    }
    if (screen[0][0] < start[0] && start[0] < screen[2][0] && screen[0][1] < start[1] && start[1] < screen[2][1]) {
      gesture = {kind: 'move', from: toPicture(start), box: choice.box};
      return;
    }
  }
  gesture = {kind: 'draw', start, from: toPicture(start), before: choice};  // from here on the picture stands still
}

function pinch() {
  const [[ax, ay], [bx, by]] = pointers.values(), middle = [(ax + bx) / 2, (ay + by) / 2];
  return {kind: 'pinch', apart: Math.hypot(ax - bx, ay - by), zoom: view.zoom, point: toPicture(middle)};
}

function moved(event) {
  if (!pointers.has(event.pointerId) || !gesture) return;
  const now = place(event);
  pointers.set(event.pointerId, now);
  if (gesture.kind === 'pinch' && pointers.size >= 2) {
    const [[ax, ay], [bx, by]] = pointers.values();
    look(gesture.zoom * Math.hypot(ax - bx, ay - by) / Math.max(gesture.apart, 1), gesture.point,
         [(ax + bx) / 2, (ay + by) / 2]);
  } else if (gesture.kind === 'pan') {
    look(view.zoom, gesture.point, now);
  } else if (gesture.kind === 'resize') {
    choice.box = rectangle(gesture.fixed, toPicture(now));
  } else if (gesture.kind === 'move') {
    const [x, y] = toPicture(now), [bx, by, w, h] = gesture.box;
    choice.box = [Math.min(Math.max(bx + x - gesture.from[0], 0), shown.width - w),
                  Math.min(Math.max(by + y - gesture.from[1], 0), shown.height - h), w, h];
  } else if (gesture.kind === 'draw' && slipped(now)) {
    choice = {box: rectangle(gesture.from, toPicture(now))};
  }
  render();
}

function slipped([x, y]) { return Math.hypot(x - gesture.start[0], y - gesture.start[1]) > TAP; }

function ended(event) {
  if (!pointers.has(event.pointerId)) return;
  const now = place(event), was = gesture;
  pointers.delete(event.pointerId);
  if (pointers.size) {
    gesture = {kind: 'over'};     // until all fingers are lifted
    return;
  }
  gesture = null;
  if (was?.kind !== 'draw') return frozen() ? render() : waiting && paint(waiting);
  if (event.type === 'pointercancel') return choose(was.before && was.before.box);
  if (Math.hypot(now[0] - was.start[0], now[1] - was.start[1]) <= TAP) {
    return tapped(was.from);
  }
  const box = rectangle(was.from, toPicture(now));
  if (box[2] < SMALLEST || box[3] < SMALLEST) {
    choose(null);
    return say('That box is too small: zoom in, or tap the object.', true);
  }
  follow(box);
}

canvas.addEventListener('pointerdown', began);
canvas.addEventListener('pointermove', moved);
canvas.addEventListener('pointerup', ended);
canvas.addEventListener('pointercancel', ended);
canvas.addEventListener('contextmenu', event => event.preventDefault());
canvas.addEventListener('wheel', event => {
  event.preventDefault();
  zoomBy(Math.exp(-event.deltaY / 400), place(event));
}, {passive: false});
addEventListener('keydown', event => {
  if (event.target.matches('input')) return;
  if (event.key === 'Escape') { gesture = null; choose(null); }
  else if (event.key === 'Enter' && choice && event.target === canvas) follow(choice.box);
  else if (event.key === '+') zoomBy(1.5);
  else if (event.key === '-') zoomBy(1 / 1.5);
  else if (event.key === '0') zoomBy(0);
});
at('in').addEventListener('click', () => zoomBy(1.5));
at('out').addEventListener('click', () => zoomBy(1 / 1.5));
at('whole').addEventListener('click', () => zoomBy(0));
at('follow').addEventListener('click', () => {
  if (choice.box[2] < SMALLEST || choice.box[3] < SMALLEST) say('That box is too small.', true);
  else follow(choice.box);
});
at('cancel').addEventListener('click', () => { choose(null); say(HINT); });
at('reset').addEventListener('click', () => ask('reset'));
at('pause').addEventListener('click', () => ask(document.body.dataset.state === 'paused' ? 'resume' : 'pause'));
at('login').addEventListener('submit', event => {
  event.preventDefault();
  token = at('token').value;
  sessionStorage.setItem('token', token);
  at('token').value = '';
});
new ResizeObserver(() => shown && look(view.zoom, [view.x * shown.width, view.y * shown.height],
                                       [canvas.clientWidth / 2, canvas.clientHeight / 2])).observe(canvas);
say(HINT);
live();
