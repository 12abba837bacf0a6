// Passkeys in pages: a form with data-passkey is sent only after the passkey answered. Nothing else happens here.
"use strict";

(() => {
  const bytes = (text) =>
    Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
  const text64 = (buffer) =>
    btoa(String.fromCharCode(...new Uint8Array(buffer))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

  const say = (form, text) => {
    const place = form.querySelector("[data-said]");
    if (place) place.textContent = text;
  };

  const known = (text) =>
    (text || "").split(" ").filter(Boolean).map((one) => ({ type: "public-key", id: bytes(one) }));

  async function get(form) {
    const found = await navigator.credentials.get({
      publicKey: {
        challenge: bytes(form.elements.challenge.value),
        rpId: form.dataset.rp,
        allowCredentials: known(form.dataset.credentials),
        userVerification: "required",
        timeout: 120000,
      },
    });
    form.elements.credential.value = text64(found.rawId);
    form.elements.assertion.value = JSON.stringify({
      authenticator_data: text64(found.response.authenticatorData),
      client_data: text64(found.response.clientDataJSON),
      signature: text64(found.response.signature),
    });
  }

  async function create(form) {
    const name = form.dataset.person;
    const made = await navigator.credentials.create({
      publicKey: {
        challenge: crypto.getRandomValues(new Uint8Array(32)),
        rp: { id: form.dataset.rp, name: form.dataset.site },
        user: { id: new TextEncoder().encode(name).slice(0, 64), name, displayName: name },
        pubKeyCredParams: [{ type: "public-key", alg: -7 }],
        excludeCredentials: known(form.dataset.credentials),
        authenticatorSelection: { residentKey: "preferred", userVerification: "required" },
        attestation: "none",
        timeout: 120000,
      },
    });
    form.elements.credential.value = text64(made.rawId);
    form.elements.public.value = text64(made.response.getPublicKey());
  }

  const why = (error) =>
    error.name === "NotAllowedError"
      ? "Nothing was signed: it was cancelled, timed out, or there is no fitting passkey on this device."
      : error.name === "InvalidStateError"
        ? "This device already has a passkey for you here."
        : "Nothing was signed: " + error.name + ".";

  document.addEventListener("submit", async (event) => {
    const form = event.target.closest("form[data-passkey]");
    if (!form) return;
    event.preventDefault();
    if (form.dataset.busy) return;
    if (!window.PublicKeyCredential) return say(form, "This browser has no passkeys on this address.");
    form.dataset.busy = "yes";
    say(form, "Waiting for your passkey …");
    try {
      await (form.dataset.passkey === "create" ? create(form) : get(form));
      say(form, "Signed. Sending …");
      HTMLFormElement.prototype.submit.call(form);
    } catch (error) {
      say(form, why(error));
    } finally {
      delete form.dataset.busy;
    }
  });
})();

// A file to check is sent as it is: the trust file's length in four bytes, the trust file, the pack.
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

// On a phone the navigation is longer than the screen: the word of this page is brought into view.
document.querySelector("nav [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });
