// Users of examples/web. Prints a line for each scenario, then the published rows and their photos as JSON.
import { createHmac } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'
import {
  act, arrived, browser, card, cards, choose, create, expect, fault, fill, forget, given, judge, mend, names, open, operate, paths, PATIENCE,
  reached, rowOf, scenario, sessionOf, signIn, signUp, sleep, stored, tab, uploaded, until, wait,
} from './browser.mjs'

const published = [] // rows, each with the files that were chosen for it
const done = async (page, name, files) => {
  await until(page, name, 'published')
  published.push([await rowOf(page, name), files])
}
const hold = (path, times = 1) => fault({ action: 'hold', when: 'before', path, method: 'POST', times })
const link = (bytes_per_second) => fault({ action: 'rate', bytes_per_second, path: '/upload/resumable', times: null })
const sizes = (files) => files.reduce((sum, name) => sum + readFileSync(`${given.files}/${name}`).length, 0)
const bars = (page) => page.locator('form progress').evaluateAll((all) => all.map((bar) => bar.value / bar.max))
const half = (page) => wait('an upload is half done', async () => (await bars(page)).some((part) => part > 0.4 && part < 0.95))

const budget = (usd_a_day) => operate('watcher_set_training', { p_settings: { enabled: true, usd_a_day } })
const answer = (page, how) => page.once('dialog', (dialog) => dialog[how]())

const context = await open()
const page = await tab(context)
await judge(page, 'sign-in')
await page.getByRole('button', { name: 'Sign in' }).click() // refused by the browser itself, without an address
await page.getByLabel('E-mail').fill('nobody@example.com')
await page.getByLabel('Password').fill('wrong password')
await page.keyboard.press('Enter')
await page.getByText('Invalid login credentials.').waitFor()
const email = await signUp(page)
const other = await open()
const stranger = await tab(other)
await signUp(stranger)
await stranger.getByText('There is none yet.').waitFor()

await scenario('1 sign up, 12 photos, live to published', async () => {
  const claims = await hold('/rpc/watcher_claim$', null)
  const files = names(1, 12)
  await fill(page, 'Zoë', files)
  await page.screenshot({ path: `${given.screens}/chosen.png`, fullPage: true })
  await page.getByRole('button', { name: 'Create' }).focus()
  await page.keyboard.press('Enter')
  await until(page, 'Zoë', 'pending')
  const commit = await hold('/commit/main$')
  await mend(claims)
  await until(page, 'Zoë', 'publishing')
  await card(page, 'Zoë').getByText('Publishing 12 of 12 photos').waitFor()
  await page.screenshot({ path: `${given.screens}/publishing.png`, fullPage: true })
  await mend(commit)
  await done(page, 'Zoë', files)
  await card(page, 'Zoë').getByText('12 photos', { exact: true }).click()
  await wait('the photos are shown', () => card(page, 'Zoë').locator('img').evaluateAll((all) => all.length === 12 && all[0].naturalWidth > 0))
  const [repo] = await Promise.all([context.waitForEvent('page'), card(page, 'Zoë').getByRole('link').click()])
  await repo.getByRole('heading', { name: /identity-zoe/ }).waitFor()
  await repo.getByRole('link', { name: 'Files' }).click()
  await repo.getByText('images/image_012.png').waitFor()
  await repo.close()
})

await scenario('2 40 × 20 MB at a limited rate', async () => {
  const processes = async () => (await (await browser.newBrowserCDPSession()).send('SystemInfo.getProcessInfo')).processInfo
    .filter(({ type }) => type === 'renderer').map(({ id }) => id)
  const before = await processes()
  const large = await tab(await open())
  await signUp(large)
  const claims = await hold('/rpc/watcher_claim$', null)
  const rate = await link(40_000_000)
  const files = names(1, 40, 'large')
  await fill(large, 'Large', files)
  await large.evaluate(() => {
    const seen = { bars: 0, still: 0, longest: 0, last: '' }
    Object.assign(window, { seen })
    setInterval(() => {
      const all = [...document.querySelectorAll('form progress')].map((bar) => bar.value)
      if (!all.length) return
      seen.bars = Math.max(seen.bars, all.length)
      seen.still = String(all) === seen.last ? seen.still + 1 : 0
      seen.longest = Math.max(seen.longest, seen.still)
      seen.last = String(all)
    }, 100)
  })
  await large.getByRole('button', { name: 'Create' }).click()
  await half(large)
  await large.screenshot({ path: `${given.screens}/bars.png`, fullPage: true })
  await until(large, 'Large', 'pending')
  const seen = await large.evaluate(() => window.seen)
  const peaks = (await processes()).filter((id) => !before.includes(id))
    .map((id) => Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${id}/status`, 'utf8'))[1]) / 1024)
  const peak = Math.max(...peaks)
  expect('The bars', seen.bars, 40)
  // On a quiet machine it is less than a second; here it must not depend on what else the machine does.
  if (seen.longest >= 50) throw new Error(`No bar has moved in ${seen.longest} looks, a tenth of a second apart.`)
  if (peak >= 400) throw new Error(`The tab had ${peak.toFixed(0)} MB.`)
  large.once('dialog', (dialog) => dialog.accept())
  await card(large, 'Large').getByRole('button', { name: 'Delete' }).click()
  await large.getByText('There is none yet.').waitFor()
  await mend(rate)
  await mend(claims)
  await large.context().close()
  return `the bars stood still for ${seen.longest / 10} s at most, the tab had ${peak.toFixed(0)} MB at most`
})

await scenario('3 net away for 20 s, and a reload, in the middle of an upload', async () => {
  const files = names(38, 40, 'large')
  const claims = await hold('/rpc/watcher_claim$', null)
  const rate = await link(6_000_000)
  await forget()
  await create(page, 'Away', files)
  await half(page)
  await context.setOffline(true)
  await sleep(10) // what was on its way arrives
  const before = await uploaded()
  await sleep(10)
  expect('The bytes that arrived without a net', (await uploaded()) - before, 0)
  await context.setOffline(false)
  await wait('the upload goes on', async () => (await uploaded()) > before + 3_000_000)
  await page.reload()
  await page.getByText('The upload of “Away” was not finished.').waitFor()
  expect('The name after a reload', await page.getByLabel('Name').inputValue(), 'Away')
  await choose(page, files)
  await page.getByText('3 photos are chosen and fit.').waitFor()
  await arrived()
  await mend(rate)
  await page.getByRole('button', { name: 'Create' }).dblclick()
  await until(page, 'Away', 'pending')
  const twice = (await uploaded()) / sizes(files) - 1
  if (twice > 0.02) throw new Error(`${(100 * twice).toFixed(1)} % of the bytes were sent twice.`)
  await rowOf(page, 'Away') // one
  await mend(claims)
  await done(page, 'Away', files)
  return `${(100 * twice).toFixed(1)} % of the bytes were sent twice, one row`
})

await scenario('4 told before any byte goes up', async () => {
  await forget()
  const told = async (files, ...sentences) => {
    await choose(page, files)
    for (const sentence of sentences) await page.getByText(sentence).waitFor()
    expect('The button', await page.getByRole('button', { name: 'Create' }).isDisabled(), true)
    await page.screenshot({ path: `${given.screens}/refused-${files.length}.png`, fullPage: true })
    while (await page.getByRole('button', { name: /^Remove photo 1 / }).count()) await page.getByRole('button', { name: /^Remove photo 1 / }).click()
  }
  await page.getByLabel('Name').fill('Nobody')
  await told(names(1, 2), '2 photos were chosen; 3 to 40 are needed.')
  await told(names(1, 41), '41 photos were chosen; 3 to 40 are needed.')
  await told([...names(1, 2), 'IMG_0001.HEIC', '21MB.jpg', 'twin.jpg'],
    'Photo 3 (IMG_0001.HEIC) is a HEIC photo; on an iPhone choose Settings > Camera > Formats > Most Compatible, or save it as JPG or PNG.',
    'Photo 4 (21MB.jpg) is larger than 20 MiB; make it smaller.',
    'Photo 5 (twin.jpg) is the same as photo 1; remove one of them.')
  expect('The bytes that went up', await uploaded(), 0)
})

await scenario('5 a broken photo: marked, replaced, tried again, published', async () => {
  const [first, , third] = names(1, 3)
  await create(page, 'Broken', [first, 'broken.jpg', third])
  await until(page, 'Broken', 'failed')
  expect('The photo that is marked', await card(page, 'Broken').locator('.photos > li').evaluateAll((all) => all.findIndex((one) => one.className === 'wrong')), 1)
  await page.screenshot({ path: `${given.screens}/failed.png`, fullPage: true })
  await choose(page, ['broken.jpg', 'IMG_0001.HEIC'])
  await page.getByText(/is a HEIC photo/).waitFor()
  await judge(page, 'list')
  await page.reload()
  await card(page, 'Broken').locator('input[type=file]').setInputFiles(paths(['good.jpg']))
  await done(page, 'Broken', [first, 'good.jpg', third])
})

await scenario("6 two identities at once, React's StrictMode, two tabs", async () => {
  const { createServer } = await import(pathToFileURL(createRequire(`${given.app}/package.json`).resolve('vite')).href)
  const server = await createServer({ root: given.app, logLevel: 'error', server: { host: '127.0.0.1', hmr: false } })
  await server.listen()
  const url = server.resolvedUrls.local[0]
  const strict = await open()
  const tabs = [await tab(strict, url)]
  await signUp(tabs[0])
  tabs.push(await tab(strict, url))
  await budget(0.01)
  const commits = await hold('/commit/main$', 2)
  await create(tabs[0], 'One', names(1, 3))
  await create(tabs[1], 'Two', names(4, 6))
  for (const one of tabs) for (const name of ['One', 'Two']) await until(one, name, 'publishing')
  await mend(commits)
  for (const one of tabs) for (const name of ['One', 'Two']) await until(one, name, 'published')
  await done(tabs[0], 'One', names(1, 3))
  await done(tabs[1], 'Two', names(4, 6))

  const snippet = await tab(await open(), url)
  const said = await snippet.evaluate(async ({ settings, formats, photos, patience }) => {
    Object.assign(window, settings, { show() {}, bar() {}, render() {} })
    const file = (photo) => new File([Uint8Array.from(atob(photo), (one) => one.charCodeAt(0))], 'photo.jpg', { type: 'image/jpeg' })
    const { describe } = await import('/src/fileTypes.ts')
    const runs = []
    const until = async (holds) => {
      for (const end = Date.now() + patience; !holds() && Date.now() < end;)
        await new Promise((resolve) => { window.wake = resolve; setTimeout(resolve, 1000) })
    }
    for (const number of [1, 2]) {
      window.files = photos[number - 1].map(file)
      let rows = []
      window.render = (news) => { rows = news; window.wake?.() }
      const it = await import(`/src/snippet.ts?${number}`)
      const followed = () => rows.find(({ id }) => id === it.row.id)
      await until(() => ['published', 'failed'].includes(followed()?.status))
      if (followed().status === 'failed') {
        await it.mend(followed(), window.files[0].constructor === File && file(photos[2][0]))
        await until(() => followed().status === 'published')
      }
      await it.train(followed())
      await until(() => followed().training_waits_until) // the day's budget is none
      const waited = !!followed().training_waits_until
      await it.withdraw(followed())
      await until(() => !followed().train)
      const asked = await it.createAndTrain()
      await it.remove(asked)
      runs.push({ row: followed(), pictures: (await it.pictures(it.row)).length, waited, asked, samples: await it.samples(followed()) })
      if (number === 2) await it.remove(followed())
      it.stop()
    }
    return { runs, told: formats.map(([start]) => describe(Uint8Array.from(start))) }
  }, {
    settings: given.settings, formats: given.formats, patience: PATIENCE,
    photos: [names(1, 3), [names(4, 4)[0], 'broken.jpg', names(5, 5)[0]], ['good.jpg']]
      .map((files) => files.map((name) => readFileSync(`${given.files}/${name}`).toString('base64'))),
  })
  expect("The statuses of docs/frontend.md's program, run twice in one page", said.runs.map(({ row, pictures }) => [row.status, pictures]), [['published', 3], ['published', 3]])
  expect('Its trainings: whether they waited, are withdrawn, and have left pictures',
    said.runs.map(({ row, waited, samples }) => [waited, row.train, samples.length]), [[true, false, 0], [true, false, 0]])
  expect('What is asked for with a row', said.runs.map(({ asked }) => [asked.identity_name, asked.train, asked.trigger_word]),
    [['Ada', true, 'ada face'], ['Ada', true, 'ada face']])
  expect('What the page and the daemon say of files', said.told, given.formats.map(([, words]) => words))
  await snippet.context().close()
  await strict.close()
  await server.close()
  return "docs/frontend.md's program ran twice in one page"
})

await scenario('7 another user sees nothing', async () => {
  expect('The identities of another user', await cards(stranger), [])
  await stranger.reload()
  await stranger.getByText('There is none yet.').waitFor()
  await other.close()
})

await scenario('8 deleted while publishing: gone', async () => {
  const second = await tab(context)
  const commit = await hold('/commit/main$')
  await create(page, 'Gone', names(7, 9))
  await until(second, 'Gone', 'publishing')
  await reached(commit)
  page.once('dialog', (dialog) => dialog.accept())
  await card(page, 'Gone').getByRole('button', { name: 'Delete' }).click()
  for (const one of [page, second]) await card(one, 'Gone').waitFor({ state: 'detached' })
  await mend(commit)
  await create(page, 'After', names(7, 9)) // the daemon goes on
  await done(page, 'After', names(7, 9))
  await second.close()
})

await scenario('9 a training: asked for, waits, withdrawn, failed, ready, deleted', async () => {
  await budget(0.01) // less than one training may cost
  await operate('watcher_set_limit', { p_name: 'trainings_per_day', p_value: 5 })
  const trainer = await tab(await open())
  await signUp(trainer)
  const seen = card(trainer, 'Model')
  const press = (name) => seen.getByRole('button', { name }).click()
  await fill(trainer, 'Model', names(1, 3))
  await trainer.getByLabel('Have a model trained').check()
  await trainer.getByLabel('Trigger word').fill('zoë')
  await trainer.getByRole('button', { name: 'Create' }).click() // refused by the browser itself
  expect('The word that is refused', await trainer.locator('input:invalid').inputValue(), 'zoë')
  await judge(trainer, 'new-training')
  await trainer.getByLabel('Trigger word').fill('zoe face')
  const claims = await hold('/rpc/watcher_claim$', null)
  await trainer.getByRole('button', { name: 'Create' }).click()
  await seen.getByText('Waiting. A training follows.').waitFor()
  await mend(claims)
  await seen.getByText(/Published\. The training waits until .*\d/).waitFor()
  const other = await rowOf(trainer, 'Model')
  expect('What was asked for', [other.train, other.trigger_word], [true, 'zoe face'])
  await trainer.screenshot({ path: `${given.screens}/training-waits.png`, fullPage: true })
  await press('Withdraw the training')
  await seen.getByText('Published', { exact: true }).waitFor()

  await budget(100)
  await act('hub_jobs_hold_next', { stage: 'RUNNING' })
  await act('hub_jobs_exit_next', { code: 15 })
  await press('Train a model')
  await until(trainer, 'Model', 'training')
  await trainer.screenshot({ path: `${given.screens}/training.png`, fullPage: true })
  expect('The buttons while it trains', await seen.getByRole('button').allTextContents(), ['Delete'])
  await act('hub_jobs_release')
  await seen.getByText('Published. The training failed: The training needed more memory than its machine has; the operator of this app has to choose a larger one.').waitFor()
  await trainer.screenshot({ path: `${given.screens}/training-failed.png`, fullPage: true })

  await press('Train again')
  await until(trainer, 'Model', 'ready')
  const shown = () => seen.locator('.samples img').evaluateAll((all) => all.length === 4 && all.every((one) => one.naturalWidth > 0))
  await wait('the first pictures are shown', shown)
  await seen.getByText('How to make more pictures').click()
  await seen.getByText('A prompt calls this person “zoe face”.').waitFor()
  await judge(trainer, 'ready')
  const picture = (await rowOf(trainer, 'Model')).sample_paths[0]
  const elsewhere = await tab(await open())
  await signUp(elsewhere)
  const asked = [['GET', trainer], ['GET', elsewhere], ['PUT', trainer], ['DELETE', trainer], ['GET', trainer]]
  const answers = []
  for (const [method, who] of asked) answers.push((await stored(who, method, `identity-samples/${picture}`)).ok)
  expect('Whether a picture can be read by its user and by another one, replaced, deleted, and read still', answers, [true, false, false, false, true])
  await elsewhere.context().close()

  await act('hub_jobs_hold_next', { stage: 'RUNNING' })
  answer(trainer, 'accept')
  await press('Train again')
  await until(trainer, 'Model', 'training')
  await wait('the pictures of the model that it has are still shown', shown)
  answer(trainer, 'accept')
  await press('Delete')
  await trainer.getByText('There is none yet.').waitFor()
  await trainer.context().close()
})

await scenario('10 session ended in the middle of an upload', async () => {
  const files = names(35, 37, 'large')
  const claims = await hold('/rpc/watcher_claim$', null)
  const rate = await link(6_000_000)
  await forget()
  await create(page, 'Ended', files)
  await half(page)
  const { access_token } = await sessionOf(page)
  const { SUPABASE_URL: url, SUPABASE_PUBLISHABLE_KEY: apikey } = given.settings
  await fetch(`${url}/auth/v1/logout?scope=global`, { method: 'POST', headers: { apikey, authorization: `Bearer ${access_token}` } })
  await page.evaluate(() => {
    const key = Object.keys(localStorage).find((key) => /^sb-.*-auth-token$/.test(key))
    localStorage.setItem(key, JSON.stringify({ ...JSON.parse(localStorage.getItem(key)), expires_at: 1 }))
  })
  await page.getByText('Your session has ended; please sign in again.').first().waitFor()
  await page.screenshot({ path: `${given.screens}/session-ended.png` })
  await signIn(page, email)
  await arrived()
  await mend(rate)
  await page.getByRole('button', { name: 'Create' }).click()
  await until(page, 'Ended', 'pending')
  const twice = (await uploaded()) / sizes(files) - 1
  if (twice > 0.02) throw new Error(`${(100 * twice).toFixed(1)} % of the bytes were sent twice.`)
  await mend(claims)
  await done(page, 'Ended', files)
  return `signed in again, ${(100 * twice).toFixed(1)} % of the bytes were sent twice`
})

await scenario('10 a token that the server alone takes for expired', async () => {
  const { access_token } = await sessionOf(page)
  const [head, claims] = access_token.split('.')
  const old = Buffer.from(JSON.stringify({ ...JSON.parse(Buffer.from(claims, 'base64url')), exp: 1 })).toString('base64url')
  const signature = createHmac('sha256', given.secret).update(`${head}.${old}`).digest('base64url')
  await fill(page, 'Skewed', names(1, 3))
  await page.evaluate((token) => {
    const key = Object.keys(localStorage).find((key) => /^sb-.*-auth-token$/.test(key))
    localStorage.setItem(key, JSON.stringify({ ...JSON.parse(localStorage.getItem(key)), access_token: token }))
  }, `${head}.${old}.${signature}`)
  await page.getByRole('button', { name: 'Create' }).click()
  await done(page, 'Skewed', names(1, 3))
})

await scenario('11 Realtime gone: the list is still right', async () => {
  const told = []
  for (const [how, name] of [['mute', 'Muted'], ['close', 'Closed']]) {
    const second = await tab(context)
    await second.locator('.list[aria-busy="false"]').waitFor({ state: 'attached' })
    await sleep(1)
    if (how === 'mute') await act('realtime_mute')
    else await act('realtime_refuse', { status: 502, times: 1000 }).then(() => act('realtime_close_all', { code: 1006 }))
    await create(page, name, names(1, 3))
    const row = async () => (await rowOf(page, name)).status
    await page.getByText('The photos are uploaded.').waitFor()
    await wait('it is published', async () => (await row()) === 'published')
    const began = performance.now()
    for (const one of [page, second]) await until(one, name, 'published')
    const seconds = (performance.now() - began) / 1000
    if (seconds > 30) throw new Error(`${how}: the list was right after ${seconds.toFixed(0)} s.`)
    told.push(`${how}: ${seconds.toFixed(1)} s`)
    await act('realtime_reset')
    await done(page, name, names(1, 3))
    await second.close()
  }
  return told.join(', ')
})

await browser.close()
console.log(JSON.stringify(published))
process.exit()
