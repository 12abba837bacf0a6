// Judges Sigstore bundles with @sigstore/verify under a managed key: [{bundle, hint, pem}] in, verdicts out.
import { createPublicKey } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

const require = createRequire(`${process.argv[2]}/package.json`)
const { bundleFromJSON } = require('@sigstore/bundle')
const { Verifier, toSignedEntity, toTrustMaterial } = require('@sigstore/verify')

const nobody = { certificateAuthorities: [], timestampAuthorities: [], tlogs: [], ctlogs: [] }
const verdicts = JSON.parse(readFileSync(0, 'utf8')).map(({ bundle, hint, pem }) => {
  try {
    const find = (asked) => {
      if (asked !== hint) throw new Error(`key not found: ${asked}`)
      return { publicKey: createPublicKey(pem), validFor: () => true }
    }
    const verifier = new Verifier(toTrustMaterial(nobody, find), { tlogThreshold: 0, timestampThreshold: 0, ctlogThreshold: 0 })
    verifier.verify(toSignedEntity(bundleFromJSON(bundle)))
    return ''
  } catch (error) {
    return String(error.message || error) || 'refused'
  }
})
process.stdout.write(JSON.stringify(verdicts))
