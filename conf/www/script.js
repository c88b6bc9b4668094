// Two small comforts; the site works without them.

// How long the server took for this very page, measured by the browser.
window.addEventListener("load", () => {
  const place = document.getElementById("live");
  const [page] = performance.getEntriesByType("navigation");
  if (!place || !page) return;
  const wait = page.responseStart - page.requestStart;
  if (!(wait > 0)) return;
  place.textContent = `This page began to arrive ${wait.toFixed(1)} ms after your browser asked.`;
  place.hidden = false;
});

// A button to copy each command.
if (navigator.clipboard) {
  for (const block of document.querySelectorAll("pre.copy")) {
    const text = block.textContent.trim();
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    block.append(button);
  }
}
