// The viewer of the group map as high as what it shows.
const viewer = document.getElementById("viewer");
function fit() {
  viewer.style.height = 0;
  viewer.style.height = `${viewer.contentDocument.documentElement.scrollHeight}px`;
}
for (const [of, event] of [[viewer, "load"], [window, "resize"], [viewer.closest("details"), "toggle"]])
  of.addEventListener(event, () => setTimeout(fit, 500));  // once it has drawn itself
