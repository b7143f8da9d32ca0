/** Upload photos, insert a row and follow it: what a page needs, without a framework. Every refusal is a sentence. */
import type { SupabaseClient } from '@supabase/supabase-js'
import type { Database } from './database.types'
import { check, digest, problemOf, typeOf } from './photos'
import { Refusal, answered, refusal, sessionEnded } from './refusal'
import { upload } from './upload'

export { check, LARGEST, LEAST, MOST, type Problem } from './photos'
export { Refusal, refusal } from './refusal'

export type Identity = Database['public']['Tables']['trained_identities']['Row']
/** Is told how many bytes of which photo, by its number from 1, have been sent. */
export type Progress = (number: number, bytes: number) => void
/** What `create` may be given. With `train`, a model is trained on the photos; `triggerWord` is what prompts call the person. */
export type Given = { onProgress?: Progress; signal?: AbortSignal; train?: boolean; triggerWord?: string }
/** Gets all identities, newest first, and a refusal while they cannot be read. */
export type Listener = (rows: Identity[], refused: Refusal | null) => void

const BUCKET = 'identity-images'
const SAMPLES = 'identity-samples'
const AT_ONCE = 3
const LOOK_EVERY = 10_000 // ms; events can be lost without a sign
const SHOWN_SECONDS = 3600
const DRAFT = 'identity'

/** The identities of the user who is signed in with `supabase`, which was made with this URL and publishable key. */
export class Identities {
  readonly supabase: SupabaseClient<Database>
  readonly #url: string
  readonly #key: string

  constructor(supabase: SupabaseClient<Database>, url: string, key: string) {
    this.supabase = supabase
    this.#url = url
    this.#key = key
  }

  /**
   * Upload 3 to 40 photos, insert a row and return it.
   *
   * If it was refused or ended, or the page reloaded, call it again with the same name and photos: only what is missing
   * is uploaded, and there is one row.
   */
  async create(name: string, files: readonly File[], given: Given = {}): Promise<Identity> {
    const [problem] = await check(files)
    if (problem) throw new Refusal(problem.message)
    const user = (await this.#session()).user.id
    const draft = `${DRAFT}:${user}:${name}` // the row's id, until the row is inserted
    const id = localStorage.getItem(draft) ?? crypto.randomUUID()
    localStorage.setItem(draft, id)
    const paths: string[] = []
    await forEach(files, given.signal, async (file, index, signal) => {
      const extension = (await typeOf(file)) === 'image/png' ? 'png' : 'jpg'
      paths[index] = `${user}/${id}/${(await digest(file)).slice(0, 16)}.${extension}`
      await this.#upload(file, paths[index], signal, (bytes) => given.onProgress?.(index + 1, bytes))
    })
    const row = await this.#insert(id, name, paths, given)
    localStorage.removeItem(draft)
    return row ?? this.create(name, files, given)
  }

  /** Return the names that `create` was begun with and not ended. */
  async unfinished(): Promise<string[]> {
    const prefix = `${DRAFT}:${(await this.#session()).user.id}:`
    return Object.keys(localStorage).filter((key) => key.startsWith(prefix)).map((key) => key.slice(prefix.length))
  }

  /** Return all identities, newest first. */
  async list(): Promise<Identity[]> {
    return answered(await this.#table().select().order('created_at', { ascending: false }))
  }

  /** Tell `listener` all identities, now and whenever one has changed. Return a function that ends it. */
  follow(listener: Listener): () => void {
    const rows = new Map<string, Identity>()
    const news = new Set<string>() // what events have changed while a look is under way, which may not have seen it
    let ended = false
    let looking = false
    let again = false

    const tell = (refused: Refusal | null = null) => {
      if (!ended) listener([...rows.values()].sort((a, b) => b.created_at.localeCompare(a.created_at)), refused)
    }
    const look = async () => {
      news.clear()
      const stamps = answered(await this.#table().select('id, updated_at'))
      const same = stamps.length === rows.size && stamps.every((one) => rows.get(one.id)?.updated_at === one.updated_at)
      const found = new Map(same ? rows : (await this.list()).map((row) => [row.id, row]))
      for (const id of new Set([...rows.keys(), ...found.keys()])) {
        const row = found.get(id)
        if (news.has(id)) continue
        if (row) rows.set(id, row)
        else rows.delete(id)
      }
      tell()
    }
    const refresh = () => {
      again = looking
      if (looking || ended) return
      looking = true
      void look()
        .catch((error: unknown) => { tell(refusal(error)) })
        .finally(() => {
          looking = false
          if (again) refresh()
        })
    }
    const channel = this.supabase
      .channel(`identities:${crypto.randomUUID()}`) // two of one name would not work
      .on('postgres_changes', { event: '*', schema: 'public', table: 'trained_identities' }, (event) => {
        const id = (event.eventType === 'DELETE' ? event.old : event.new).id as string | undefined
        const known = rows.get(id ?? '')
        if (!id || (!known && event.eventType === 'DELETE')) return // somebody else's
        if (!known) return refresh()
        news.add(id)
        if (event.eventType === 'DELETE') rows.delete(id)
        else rows.set(id, { ...known, ...event.new }) // an update lacks large columns that did not change
        tell()
      })
      // Changes are delivered from this message on, not from the state SUBSCRIBED on, and earlier ones never.
      .on('system', {}, ({ extension, status }: { extension: string; status: string }) => {
        if (extension === 'postgres_changes' && status === 'ok') refresh()
      })
      .subscribe()
    const timer = setInterval(() => { if (!document.hidden) refresh() }, LOOK_EVERY)
    document.addEventListener('visibilitychange', refresh)
    window.addEventListener('online', refresh)
    refresh()
    return () => {
      ended = true
      clearInterval(timer)
      document.removeEventListener('visibilitychange', refresh)
      window.removeEventListener('online', refresh)
      void this.supabase.removeChannel(channel)
    }
  }

  /** Return a URL for each photo of a row, valid for an hour; null for one that is missing. */
  async thumbnails(row: Identity): Promise<(string | null)[]> {
    const urls = answered(await this.#bucket().createSignedUrls(row.image_paths, SHOWN_SECONDS))
    return urls.map(({ error, signedUrl }) => (error ? null : signedUrl))
  }

  /** Put another photo in the place of one of a failed row, by its number from 1. Then `retry`. */
  async replace(row: Identity, number: number, file: File): Promise<void> {
    const what = await problemOf(file)
    if (what) throw new Refusal(`The photo (${file.name}) ${what}.`)
    const path = row.image_paths[number - 1]
    answered(await this.#bucket().remove([path])) // an object cannot be overwritten
    if (!(await this.#upload(file, path))) throw new Refusal('The photo is in use and cannot be replaced now.')
  }

  /** Have a failed row tried again. */
  async retry(row: Identity): Promise<void> {
    const failed = this.#table().update({ status: 'pending' }).eq('id', row.id).eq('status', 'failed')
    const changed = answered(await failed.select('id'))
    if (!changed.length) throw new Refusal('This identity has not failed, so it cannot be tried again.')
  }

  /** Ask for a training of a published or ready row or, with `wanted` false, withdraw that while it waits. */
  async train(row: Identity, wanted = true): Promise<void> {
    const changed = answered(await this.#table().update({ train: wanted }).eq('id', row.id).select('id'))
    if (changed.length) return
    throw new Refusal(wanted
      ? 'This identity is not published, or is being trained already.'
      : 'The training has started; to cancel it, delete the identity.')
  }

  /** Return a URL for each of the first pictures of a trained row, valid for an hour; those that are gone are left out. */
  async samples(row: Identity): Promise<string[]> {
    if (!row.sample_paths?.length) return []
    const urls = answered(await this.supabase.storage.from(SAMPLES).createSignedUrls(row.sample_paths, SHOWN_SECONDS))
    return urls.flatMap(({ signedUrl }) => signedUrl ?? [])
  }

  /** Delete a row in any status, which also cancels what is being done for it. One that is gone already is no error. */
  async remove(row: Identity): Promise<void> {
    answered(await this.#table().delete().eq('id', row.id).select('id'))
  }

  #table() {
    return this.supabase.from('trained_identities')
  }

  #bucket() {
    return this.supabase.storage.from(BUCKET)
  }

  /** Return the session, with a new token if the old one has expired, or the server has refused it. */
  async #session(refused = false) {
    const { auth } = this.supabase
    const { data, error } = await (refused ? auth.refreshSession() : auth.getSession())
    if (error) throw refusal(error, error.status)
    if (!data.session) throw sessionEnded()
    return data.session
  }

  #upload(file: File, path: string, signal?: AbortSignal, onProgress?: (bytes: number) => void) {
    const token = async (refused: boolean) => (await this.#session(refused)).access_token
    return upload(file, { url: this.#url, key: this.#key, bucket: BUCKET, path, token }, signal, onProgress)
  }

  /** Insert a row, or find it inserted; return null where the id belongs to a row that was deleted, as its photos are. */
  async #insert(id: string, name: string, paths: string[], given: Given): Promise<Identity | null> {
    const training = { train: given.train, trigger_word: given.triggerWord?.trim() || undefined }
    const answer = await this.#table().insert({ id, identity_name: name, image_paths: paths, ...training }).select().single()
    const used = answer.error?.code === '23505' || answer.error?.message.includes('identity was deleted')
    if (!used) return answered(answer)
    // This row has the id, if the answer was lost or the button pressed twice; or else one of another tab, or one deleted.
    const known = answered(await this.#table().select().eq('id', id)).at(0)
    if (!known) return null
    return String(known.image_paths) === String(paths) ? known : this.#insert(crypto.randomUUID(), name, paths, given)
  }
}

/** Call `act` for each item, for a few at once. The first that fails ends the others. */
async function forEach<T>(
  items: readonly T[], signal: AbortSignal | undefined, act: (item: T, index: number, signal: AbortSignal) => Promise<void>,
) {
  const failed = new AbortController()
  const either = signal ? AbortSignal.any([signal, failed.signal]) : failed.signal
  const left = [...items.entries()]
  const worker = async () => {
    for (let next = left.shift(); next; next = left.shift()) {
      either.throwIfAborted()
      await act(next[1], next[0], either)
    }
  }
  try {
    await Promise.all(Array.from({ length: AT_ONCE }, worker))
  } catch (error) {
    failed.abort(error)
    throw error
  }
}
