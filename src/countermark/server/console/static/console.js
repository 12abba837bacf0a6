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
    const name = form.elements.person.value.trim();
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
    const key = made.response.getPublicKey();
    if (!key) throw new DOMException("", "NotSupportedError");
    form.elements.public.value = text64(key);
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

// On a phone the navigation is longer than the screen: the word of this page is brought into view.
document.querySelector("nav [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });
