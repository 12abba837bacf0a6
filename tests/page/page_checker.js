// Runs the check of the page over packs, one JSON line each: node page_checker.js verify.js LIST, where LIST has lines
// "PACK<tab>TRUST" (TRUST may be empty).
"use strict";
const fs = require("node:fs");
(0, eval)(fs.readFileSync(process.argv[2], "utf8"));
const bytes = (path) => new Uint8Array(fs.readFileSync(path));

(async () => {
  for (const line of fs.readFileSync(process.argv[3], "utf8").split("\n").filter(Boolean)) {
    const [pack, trust] = line.split("\t"), began = performance.now();
    try {
      const report = await countermark.verify(bytes(pack), trust ? await countermark.readTrust(bytes(trust)) : null);
      delete report.page;
      console.log(JSON.stringify({...report, ms: performance.now() - began}));
    } catch (error) {
      console.log(JSON.stringify({verdict: "crashed", error: error.stack}));
    }
  }
})();
