// Turns each element marked data-minivdm="KEY" into a frame player. Every clip is one picture, its frames side by
// side; without scripts that picture stays on the page as a filmstrip. No element has an id, so that the same
// player may stand twice on a page.
(function () {
  "use strict";
  function make(name, parent, properties) {
    var element = document.createElement(name);
    Object.assign(element, properties || {});
    parent.appendChild(element);
    return element;
  }
  function start(root) {
    root.dataset.ready = "1";
    root.querySelector(".mv-screens").style.maxWidth = root.dataset.room + "px";
    root.querySelectorAll(".mv-still").forEach(function (note) { note.remove(); });
    var frames = Number(root.dataset.frames), fps = Number(root.dataset.fps);
    var now = 0, speed = 1, timer = null;
    var clips = Array.from(root.querySelectorAll("figure")).map(function (box) {
      var sprite = box.querySelector("img"), count = Number(box.dataset.frames);
      var canvas = document.createElement("canvas");
      canvas.width = Number(box.dataset.width);
      canvas.height = Number(box.dataset.height);
      canvas.style.width = box.dataset.shown + "px";
      canvas.style.height = Math.round(box.dataset.shown * canvas.height / canvas.width) + "px";
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", sprite.alt);
      canvas.addEventListener("click", toggle);
      sprite.style.display = "none";
      sprite.addEventListener("load", draw);
      box.insertBefore(canvas, sprite);
      var observed = new Set((box.dataset.observed || "").split(",").filter(Boolean).map(Number));
      return { sprite: sprite, canvas: canvas, count: count, observed: observed };
    });
    var bar = make("div", root, { className: "mv-bar" });
    function button(label, text, action) {
      var made = make("button", bar, { type: "button", textContent: text, title: label });
      made.setAttribute("aria-label", label);
      made.addEventListener("click", action);
      return made;
    }
    var play = button("Play", "\u25B6\uFE0E", toggle);
    button("Previous frame", "\u2039", function () { pause(); go(now - 1); });
    button("Next frame", "\u203A", function () { pause(); go(now + 1); });
    var track = make("div", bar, { className: "mv-track" });
    var scrub = make("input", track, { type: "range", min: 0, max: frames - 1, step: 1, value: 0 });
    scrub.setAttribute("aria-label", "Frame");
    scrub.addEventListener("input", function () { pause(); go(Number(scrub.value)); });
    var ticks = make("div", track, { className: "mv-ticks" });
    ticks.setAttribute("aria-hidden", "true");
    for (var i = 0; i < frames; i++) {
      var seen = clips.some(function (clip) { return clip.observed.has(i); });
      make("i", ticks, { className: seen ? "mv-seen" : "" });
    }
    var where = make("output", bar, {});
    var rate = make("select", bar, { title: "Speed" });
    rate.setAttribute("aria-label", "Speed");
    [["\u00BC\u00D7", 0.25], ["\u00BD\u00D7", 0.5], ["1\u00D7", 1], ["2\u00D7", 2], ["4\u00D7", 4]].forEach(function (one) {
      make("option", rate, { textContent: one[0], value: one[1], selected: one[1] === 1 });
    });
    rate.addEventListener("change", function () {
      speed = Number(rate.value);
      if (timer) { pause(); run(); }
    });
    root.addEventListener("keydown", function (event) {
      if (event.altKey || event.ctrlKey || event.metaKey || event.target === rate) return;
      if ((event.key === " " || event.key === "Enter") && event.target.tagName === "BUTTON") return;
      var act = {
        " ": toggle,
        ArrowLeft: function () { pause(); go(now - 1); },
        ArrowRight: function () { pause(); go(now + 1); },
        Home: function () { pause(); go(0); },
        End: function () { pause(); go(frames - 1); }
      }[event.key];
      if (act) { act(); event.preventDefault(); event.stopPropagation(); }
    });
    function draw() {
      var marked = 0;
      clips.forEach(function (clip) {
        var at = Math.min(now, clip.count - 1), seen = clip.observed.has(at);
        var w = clip.canvas.width, h = clip.canvas.height;
        clip.canvas.getContext("2d").drawImage(clip.sprite, at * w, 0, w, h, 0, 0, w, h);
        clip.canvas.className = seen ? "mv-observed" : "";
        marked += seen;
      });
      var words = "frame " + now + " / " + (frames - 1) + (marked ? ", observed" : "");
      where.textContent = words;
      scrub.value = now;
      scrub.setAttribute("aria-valuetext", words);
      root.dataset.frame = now;
      Array.from(ticks.children).forEach(function (tick, k) { tick.classList.toggle("mv-now", k === now); });
    }
    function go(frame) { now = (frame + frames) % frames; draw(); }
    function face(label, text) {
      play.textContent = text;
      play.title = label;
      play.setAttribute("aria-label", label);
      root.dataset.playing = String(timer !== null);
    }
    function pause() { clearInterval(timer); timer = null; face("Play", "\u25B6\uFE0E"); }
    function run() {
      timer = setInterval(function () { root.isConnected ? go(now + 1) : pause(); }, 1000 / (fps * speed));
      face("Pause", "\u275A\u275A");
    }
    function toggle() { timer ? pause() : run(); }
    pause();
    draw();
  }
  document.querySelectorAll('[data-minivdm="KEY"]:not([data-ready])').forEach(start);
})();
