"use strict";
(() => {
  const figures = [...document.querySelectorAll("script.figure")];
  const drawn = [];
  const touch = matchMedia("(pointer: coarse)").matches;
  const narrow = () => window.innerWidth < 560;

  const unpacked = async (text) => {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  };

  const fitted = (layout) => {
    if (!narrow()) return layout;
    const small = { ...layout, margin: { ...layout.margin, l: 40, r: 6 }, font: { ...layout.font, size: 12 } };
    const legend = layout.meta?.legend_below ?? 0;
    const room = legend ? 20 * Math.max(0, Math.ceil(legend / 3) - 1) : 0;
    small.height += room;
    small.margin.b += room;
    if (touch) {
      small.dragmode = false;
      for (const key of Object.keys(small)) {
        if (/^[xy]axis\d*$/.test(key)) small[key] = { ...small[key], fixedrange: true };
      }
    }
    return small;
  };

  const draw = async (source) => {
    const box = document.getElementById(source.dataset.chart);
    const figure = JSON.parse(source.textContent);
    const config = {
      responsive: true,
      displaylogo: false,
      displayModeBar: touch ? false : "hover",
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
      toImageButtonOptions: { format: "svg", filename: source.dataset.chart },
    };
    const waiting = [...box.childNodes];
    box.replaceChildren();
    try {
      await Plotly.newPlot(box, figure.data, fitted(figure.layout), config);
      drawn.push(box);
    } catch (error) {
      console.error(error);
      box.replaceChildren(...waiting);
      say(box, "This chart could not be drawn; the table below holds its numbers.");
    }
    box.style.minHeight = "";
  };

  const say = (place, text) => {
    for (const waiting of place.querySelectorAll(".waiting")) {
      waiting.textContent = text;
      waiting.parentElement.style.minHeight = "";
    }
  };

  const start = async () => {
    if (!window.DecompressionStream) {
      say(document, "This browser is too old to draw the charts; the tables below hold their numbers.");
      return;
    }
    const script = document.createElement("script");
    script.textContent = await unpacked(document.getElementById("plotly").textContent);
    document.head.append(script);
    for (const source of figures) {
      await draw(source);
      await new Promise((resolve) => setTimeout(resolve));
    }
    document.documentElement.dataset.drawn = String(drawn.length);
  };

  // On paper a chart is as wide as the page, and settings are unfolded.
  const paper = 670;
  let unfolded = [];
  window.addEventListener("beforeprint", () => {
    unfolded = [...document.querySelectorAll("details.on-paper:not([open])")];
    for (const folded of unfolded) folded.open = true;
    for (const box of drawn) Plotly.relayout(box, { autosize: false, width: paper });
  });
  window.addEventListener("afterprint", () => {
    for (const folded of unfolded) folded.open = false;
    for (const box of drawn) Plotly.relayout(box, { autosize: true, width: null });
  });
  if (window.innerWidth < 1160) document.querySelector(".contents").open = false;
  start();
})();
