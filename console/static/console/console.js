// Keeps the pieces of a page up to date: the server sends those that have changed, as HTML.
(() => {
  const { kind, id, updates } = document.body.dataset;
  const live = document.getElementById("live");
  const LONGEST_PAUSE = 10000;
  const FOR_GOOD = new Set([4403, 4404]);
  let pause = 500;

  const tell = (text, on) => {
    if (live.textContent !== text) live.textContent = text;
    live.classList.toggle("on", on);
  };

  const put = (piece, html) => {
    // What is open stays open, and what has the focus keeps it.
    const open = [...piece.querySelectorAll("details")].map((one) => one.open);
    const links = [...piece.querySelectorAll("a, summary, [tabindex]")];
    const focused = links.indexOf(document.activeElement);
    const scrolled = [piece, ...piece.querySelectorAll(".scrolls")].map((one) => one.scrollLeft);
    piece.innerHTML = html;
    piece.querySelectorAll("details").forEach((one, n) => (one.open = open[n] ?? false));
    [piece, ...piece.querySelectorAll(".scrolls")].forEach((one, n) => (one.scrollLeft = scrolled[n] ?? 0));
    if (focused >= 0) [...piece.querySelectorAll("a, summary, [tabindex]")][focused]?.focus({ preventScroll: true });
  };

  const connect = () => {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const query = new URLSearchParams({ kind, id });
    const socket = new WebSocket(`${scheme}//${location.host}${updates}?${query}`);
    socket.onmessage = (event) => {
      pause = 500;
      tell("live", true);
      for (const [name, html] of Object.entries(JSON.parse(event.data).pieces)) {
        const piece = document.querySelector(`[data-piece="${name}"]`);
        if (piece) put(piece, html);
      }
    };
    socket.onclose = (event) => {
      if (FOR_GOOD.has(event.code)) return tell("not live: log in again", false);
      tell("connecting", false);
      setTimeout(connect, pause);
      pause = Math.min(pause * 2, LONGEST_PAUSE);
    };
  };
  connect();
})();
