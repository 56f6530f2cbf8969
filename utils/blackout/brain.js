// A record's effects on slices of the atlas, and the viewer of the group map as high as what it shows.
const drawing = JSON.parse(document.getElementById("drawing").textContent);
const [depth, height, width] = drawing.shape;
const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
const labels = new Int32Array(bytes(drawing.slices).buffer), anatomy = bytes(drawing.anatomy);
const pale = drawing.colours.map(hex => [1, 3, 5].map(at => parseInt(hex.slice(at, at + 2), 16)));
const select = document.getElementById("subject");
const canvases = drawing.cuts.map(() => Object.assign(document.createElement("canvas"), { width, height }));
canvases.forEach((canvas, level) => {
  const panel = document.createElement("figure"), caption = document.createElement("figcaption");
  caption.append(...["L", `z = ${drawing.cuts[level]} mm`, "R"].map(text =>
    Object.assign(document.createElement("span"), { textContent: text })));
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Reliance on each region, slice at z = ${drawing.cuts[level]} mm`);
  panel.append(caption, canvas);
  document.getElementById("slices").append(panel);
});
drawing.subjects.forEach((subject, index) => select.add(new Option(subject.name, index)));

function draw() {
  const subject = drawing.subjects[select.value];
  const effect = new Map(drawing.regions.map((region, index) => [region, subject.effect[index]]));
  const largest = Math.max(...subject.effect.map(Math.abs)) || 1;
  canvases.forEach((canvas, level) => {
    const image = new ImageData(width, height);
    for (let at = 0; at < width * height; at++) {
      const voxel = level * width * height + at, of = effect.get(labels[voxel]);
      const light = anatomy[voxel] ? .35 + .65 * anatomy[voxel] / 255 : 1;  // white outside the head
      const colour = of === undefined ? [255, 255, 255] : pale[Math.round((of / largest + 1) / 2 * (pale.length - 1))];
      image.data.set([...colour.map(part => part * light), 255], 4 * at);
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
  });
  document.getElementById("ticks").replaceChildren(...[-1, -.5, 0, .5, 1].map(share =>
    Object.assign(document.createElement("span"), { textContent: Number((share * largest).toPrecision(2)) })));
  document.getElementById("prediction").textContent =
    `${subject.label ? "autism" : "control"}, predicted probability of autism ${subject.probability}`;
}
select.onchange = draw;
draw();

const viewer = document.getElementById("viewer");
function fit() {
  viewer.style.height = 0;
  viewer.style.height = `${viewer.contentDocument.documentElement.scrollHeight}px`;
}
for (const [of, event] of [[viewer, "load"], [window, "resize"], [viewer.closest("details"), "toggle"]])
  of.addEventListener(event, () => setTimeout(fit, 500));  // once it has drawn itself
