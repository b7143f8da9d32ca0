// What the scenarios share: a browser, people in it, what is on the screen, and faults of the sandbox.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { chromium } from 'playwright-core'

export const given = JSON.parse(readFileSync(0, 'utf8'))
export const PATIENCE = 90_000 // ms to wait for what has to happen; only a failure takes as long
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const flags = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync']

export const browser = await chromium.launch({ executablePath: given.chromium, args: flags })
const errors = []

export function expect(what, found, wanted) {
  if (JSON.stringify(found) !== JSON.stringify(wanted))
    throw new Error(`${what}: ${JSON.stringify(wanted)} was expected, but it is ${JSON.stringify(found)}.`)
}

// A window of its own: nothing is shared with another one.
export async function open(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1000, height: 900 }, ...options })
  context.setDefaultTimeout(PATIENCE)
  return context
}

export async function tab(context, url = given.page) {
  const page = await context.newPage()
  page.on('pageerror', (error) => errors.push(error.message))
  page.on('console', (message) => {
    // The browser itself writes a line for each request that fails, as many do here on purpose.
    if (message.type() === 'error' && !/Failed to load resource|WebSocket connection to/.test(message.text())) errors.push(message.text())
  })
  await page.goto(url)
  return page
}

let people = 0
export async function signUp(page) {
  const email = `check-${++people}@example.com`
  await page.getByRole('button', { name: 'I am new here' }).click()
  await page.getByLabel('E-mail').fill(email)
  await page.getByLabel('Password').fill('correct horse')
  await page.getByRole('button', { name: 'Sign up' }).click()
  await page.getByText(email).waitFor()
  return email
}

export async function signIn(page, email) {
  await page.getByLabel('E-mail').fill(email)
  await page.getByLabel('Password').fill('correct horse')
  await page.getByRole('button', { name: 'Sign in' }).click()
  await page.getByText(email).waitFor()
}

export const names = (first, last, kind = 'photo') =>
  Array.from({ length: last - first + 1 }, (_, index) => {
    const number = String(first + index).padStart(2, '0')
    return `${kind}-${number}.${kind === 'photo' && (first + index) % 6 === 0 && first + index < 13 ? 'png' : 'jpg'}`
  })
export const paths = (files) => files.map((name) => `${given.files}/${name}`)

export async function choose(page, files) {
  await page.locator('form input[type=file]').setInputFiles(paths(files))
}

export async function fill(page, name, files) {
  await page.getByLabel('Name').fill(name)
  await choose(page, files)
  await page.getByText(`${files.length} photos are chosen and fit.`).waitFor()
}

export async function create(page, name, files) {
  await fill(page, name, files)
  await page.getByRole('button', { name: 'Create' }).click()
}

export const card = (page, name) => page.locator(`.list > li[aria-label="${name}"]`)
export const cards = async (page) => page.locator('.list > li').evaluateAll((all) => all.map((one) => one.ariaLabel).sort())
export const until = (page, name, status) => page.locator(`.list > li[aria-label="${name}"][data-status="${status}"]`).waitFor()

// What an operator's command does.
export async function operate(verb, body) {
  const { SUPABASE_URL: url } = given.settings
  const headers = { apikey: given.key, authorization: `Bearer ${given.key}`, 'content-type': 'application/json' }
  const answer = await fetch(`${url}/rest/v1/rpc/${verb}`, { method: 'POST', headers, body: JSON.stringify(body) })
  if (!answer.ok) throw new Error(`${verb}: ${await answer.text()}`)
  return answer.json()
}

// The rows as the user sees them who is signed in on the page.
export async function rowOf(page, name) {
  const { SUPABASE_URL: url, SUPABASE_PUBLISHABLE_KEY: key } = given.settings
  const session = await sessionOf(page)
  const answer = await fetch(`${url}/rest/v1/trained_identities?identity_name=eq.${encodeURIComponent(name)}`, {
    headers: { apikey: key, authorization: `Bearer ${session.access_token}` },
  })
  const rows = await answer.json()
  expect(`The number of rows named ${name}`, rows.length, 1)
  return rows[0]
}

// A request for an object, as the user sends it who is signed in on the page.
export async function stored(page, method, path) {
  const { SUPABASE_URL: url, SUPABASE_PUBLISHABLE_KEY: apikey } = given.settings
  const { access_token } = await sessionOf(page)
  const headers = { apikey, authorization: `Bearer ${access_token}`, ...(method === 'PUT' && { 'content-type': 'image/png' }) }
  return fetch(`${url}/storage/v1/object/${method === 'GET' ? 'authenticated/' : ''}${path}`, { method, headers, ...(method === 'PUT' && { body: 'x' }) })
}

export const sessionOf = (page) => page.evaluate(() =>
  JSON.parse(localStorage.getItem(Object.keys(localStorage).find((key) => /^sb-.*-auth-token$/.test(key)))))

// Faults, and what the server has seen.
async function control(method, path, body) {
  const answer = await fetch(given.control + path, { method, body: body && JSON.stringify(body) })
  if (!answer.ok) throw new Error(`${method} ${path}: ${await answer.text()}`)
  return answer.status === 204 ? null : answer.json()
}
export const fault = async (rule) => (await control('POST', '/faults', rule)).id
export const mend = (id) => control('DELETE', `/faults/${id}`)
export const reached = async (id) => expect('The requests that a fault has met', (await control('GET', `/holds/${id}?wait=60`)).reached > 0, true)
export const act = (name, body = {}) => control('POST', `/actions/${name}`, body)
export const forget = () => control('DELETE', '/log')
export async function uploaded() {
  const counts = await control('GET', '/counts')
  return counts.filter(({ route }) => route.includes('/upload/resumable')).reduce((sum, one) => sum + one.bytes_in, 0)
}

// Return when what was on its way has arrived: a request that goes on sooner ends the former one, whose bytes are sent again.
export async function arrived() {
  for (let before = -1, now; (now = await uploaded()) !== before; before = now) await sleep(2)
}

export const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds))
export async function wait(what, holds) {
  for (const end = Date.now() + PATIENCE; !(await holds()); await sleep(0.1))
    if (Date.now() > end) throw new Error(`It does not happen: ${what}.`)
}

// Accessibility: no serious finding of axe; and on a narrow screen nothing lies beside it.
export async function judge(page, name) {
  for (const colorScheme of ['light', 'dark']) {
    for (const width of [360, 1400]) {
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' })
      await page.setViewportSize({ width, height: 900 })
      await page.screenshot({ path: `${given.screens}/${name}-${colorScheme}-${width}.png`, fullPage: true })
      const beside = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)
      if (beside > 0) throw new Error(`${name} is ${beside} px wider than a screen of ${width} px.`)
      if (!(await page.evaluate(() => 'axe' in window))) await page.evaluate(axe)
      const { violations } = await page.evaluate(() => window.axe.run())
      const serious = violations.filter(({ impact }) => impact === 'serious' || impact === 'critical')
      expect(`What axe finds on ${name}, ${colorScheme}, ${width} px`, serious.map(({ id, nodes }) => [id, nodes[0].html]), [])
    }
  }
  await page.setViewportSize({ width: 1000, height: 900 })
}

export async function scenario(name, play) {
  if (given.only.length && !given.only.some((part) => name.includes(part))) return
  const began = performance.now()
  try {
    const told = await play()
    expect('Errors in the console', errors, [])
    console.log(`✓ ${name}${told ? `: ${told}` : ''} (${((performance.now() - began) / 1000).toFixed(0)} s)`)
  } catch (error) {
    for (const [index, page] of browser.contexts().flatMap((context) => context.pages()).entries())
      await page.screenshot({ path: `${given.screens}/failed-${index}.png` }).catch(() => undefined)
    console.log(`Scenario "${name}": ${String(error.stack ?? error).replaceAll('\n', ' | ')} ${errors.join(' | ')}`)
    process.exit(1)
  }
}
