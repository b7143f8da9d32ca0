// Simulates a user of a page that contains the snippet of docs/frontend.md (readme.mjs, unchanged).
// Reads settings, photos and the URL of a fault as JSON from stdin, and prints what the page showed as JSON.
import { readFileSync } from 'node:fs'

const given = JSON.parse(readFileSync(0, 'utf8'))
Object.assign(globalThis, given.settings)

// Like that of an <input type="file">: iterable, and without entries().
class FileList {
  constructor(files) { Object.assign(this, files, { length: files.length }) }
  [Symbol.iterator] = Array.prototype.values
}
const photo = (name) => new File([Buffer.from(given.photos[name], 'base64')], name, { type: 'image/jpeg' })

const sockets = []
globalThis.WebSocket = class extends WebSocket {
  frames = []
  constructor(url, protocols) {
    super(url, protocols)
    sockets.push(this)
    this.addEventListener('message', ({ data }) => this.frames.push(JSON.parse(data)))
  }
}

let pages = 0
let wake = () => {}
globalThis.render = () => wake()

// Each import is a new load of the page.
const open = (...names) => {
  globalThis.files = new FileList(names.map(photo))
  return import(`./readme.mjs?${pages++}`)
}
const shows = async (page, status) => {
  const began = performance.now()
  const tooLate = setTimeout(() => {
    console.error(`The page does not show "${status}" after 30 s, but ${JSON.stringify(page.identity)}`)
    process.exit(1)
  }, 30_000)
  while (page.identity.status !== status) await new Promise((resolve) => { wake = resolve })
  clearTimeout(tooLate)
  return (performance.now() - began) / 1000
}
const brief = (error) => error && { code: error.code, message: error.message }

const seen = {}
seen.two_photos = await open('a', 'b').then(() => null, brief)

const good = await open('a', 'b', 'c')
seen.published = { seconds: await shows(good, 'published'), row: good.identity }
const { identity_name, image_paths } = good.row
const again = (forged) => good.supabase.from('trained_identities').insert({ identity_name, image_paths, ...forged })
seen.forged_status = brief((await again({ status: 'published' })).error)
seen.forged_column = brief((await again({ model_id: 'mine/own' })).error)
seen.replaced = brief((await good.bucket.upload(image_paths[0], photo('d'), { upsert: true })).error)

// Realtime closes the next page's connection once: after it reconnects, only a query shows how its row has ended.
await fetch(given.hang_up, { method: 'POST', body: '{}' })
const bad = await open('a', 'text', 'c')
await shows(bad, 'failed')
seen.failed = { ...bad.identity }
await bad.replace(2, photo('d'))
await bad.retry()
seen.retried = { seconds: await shows(bad, 'published'), row: bad.identity }

seen.sockets = sockets.map(({ url, frames }) => ({ url, frames }))
console.log(JSON.stringify(seen))
process.exit()
