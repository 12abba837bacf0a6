// Only on the page of evidence: a file to check is sent as it is, the trust file's length in four bytes, the trust file, the pack.
"use strict";

(() => {
  const read = async (input) => (input && input.files[0] ? new Uint8Array(await input.files[0].arrayBuffer()) : new Uint8Array());

  document.addEventListener("submit", async (event) => {
    const form = event.target.closest("form[data-upload]");
    if (!form) return;
    event.preventDefault();
    if (form.dataset.busy) return;
    const place = form.querySelector("[data-said]");
    const into = document.getElementById(form.dataset.into);
    form.dataset.busy = "yes";
    place.textContent = "Sending and checking …";
    try {
      const trust = await read(form.elements.trust);
      const pack = await read(form.elements.pack);
      const length = new DataView(new ArrayBuffer(4));
      length.setUint32(0, trust.length);
      const answer = await fetch(form.dataset.upload, {
        method: "POST",
        headers: { "content-type": "application/octet-stream", "x-countermark-token": form.dataset.token, "hx-request": "true" },
        body: new Blob([length.buffer, trust, pack]),
      });
      const text = await answer.text();
      if (answer.headers.get("hx-redirect")) return location.assign(answer.headers.get("hx-redirect"));
      const parsed = new DOMParser().parseFromString(text, "text/html");
      into.replaceChildren(...(answer.ok ? parsed.body : parsed.querySelector("main") || parsed.body).childNodes);
      place.textContent = answer.ok ? "Checked." : "It could not be checked.";
      into.focus();
    } catch (error) {
      place.textContent = "It could not be sent: too large, or the server is away.";
    } finally {
      delete form.dataset.busy;
    }
  });
})();
