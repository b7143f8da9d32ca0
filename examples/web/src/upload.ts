/** One photo, sent in parts that go on where they were, after a lost connection and after a reload. */
import { DetailedError, Upload } from 'tus-js-client'
import { digest, typeOf } from './photos'
import { Refusal, refusal } from './refusal'

const PART = 6 * 1024 * 1024 // the only size of a part that Storage takes
const WAITS = Array<number>(60).fill(2000) // ms between tries that make no progress: two minutes in all
const PASSING = [408, 409, 423, 429]

export type Target = {
  url: string
  key: string
  bucket: string
  path: string
  /** The user's token; a new one, if the server has refused the one before. */
  token: (refused: boolean) => Promise<string>
}

/** Upload a photo, and return false if there is an object of this path already. Throws a Refusal, or what `signal` says. */
export async function upload(file: File, target: Target, signal?: AbortSignal, onProgress?: (bytes: number) => void) {
  const type = (await typeOf(file)) ?? ''
  const hash = await digest(file)
  signal?.throwIfAborted()
  let token: 'good' | 'refused' | 'renewed' = 'good'
  return new Promise<boolean>((resolve, reject) => {
    const sending = new Upload(file, {
      endpoint: `${target.url}/storage/v1/upload/resumable`,
      headers: { apikey: target.key, 'x-upsert': 'false' },
      metadata: { bucketName: target.bucket, objectName: target.path, contentType: type, cacheControl: '0' },
      chunkSize: PART,
      retryDelays: WAITS,
      fingerprint: () => Promise.resolve(`${target.path}:${hash}`),
      removeFingerprintOnSuccess: true,
      onBeforeRequest: async (request) => {
        const renew = token === 'refused'
        if (renew) token = 'renewed'
        request.setHeader('Authorization', `Bearer ${await target.token(renew)}`)
      },
      onShouldRetry: (error) => {
        if (!isExpired(error)) return isPassing(error)
        if (token === 'good') token = 'refused'
        return token === 'refused'
      },
      onProgress: (bytes) => onProgress?.(bytes),
      onSuccess: () => { resolve(true) },
      onError: (error) => {
        if (!exists(error)) return reject(sentence(error, file))
        onProgress?.(file.size)
        resolve(false)
      },
    })
    signal?.addEventListener('abort', () => { void sending.abort(); reject(signal.reason as Error) })
    void sending.findPreviousUploads().then(([previous]) => {
      if (previous) sending.resumeFromPreviousUpload(previous)
      if (!signal?.aborted) sending.start()
    })
  })
}

const statusOf = (error: Error) => (error instanceof DetailedError ? (error.originalResponse?.getStatus() ?? 0) : 0)
const textOf = (error: Error) => (error instanceof DetailedError ? (error.originalResponse?.getBody() ?? '') : '')
const exists = (error: Error) => statusOf(error) === 409 && textOf(error).includes('already exists')
/** The refusal of a token, which is asked for before each request. */
const refusedBy = (error: Error) => {
  const cause = error instanceof DetailedError ? error.causingError : null
  return cause instanceof Refusal ? cause : null
}
const isExpired = (error: Error) => statusOf(error) === 400 && textOf(error).includes('claim')

/** Whether the same request may succeed later: nothing was answered, or that the server is busy or in trouble. */
function isPassing(error: Error): boolean {
  const refused = refusedBy(error)
  if (refused) return refused.reason === 'connection'
  const status = statusOf(error)
  return !exists(error) && (status === 0 || status >= 500 || PASSING.includes(status))
}

function sentence(error: Error, file: File): Refusal {
  const refused = refusedBy(error)
  if (refused) return refused
  const status = statusOf(error)
  if (!status) return refusal({ message: 'Failed to fetch' })
  if (status === 413) return new Refusal(`The photo (${file.name}) is larger than 20 MiB; make it smaller.`)
  if (status === 415) return new Refusal(`The photo (${file.name}) is neither a JPG nor a PNG; save it as one of them.`)
  if (status >= 500) return new Refusal(`The server could not take the photo (${file.name}); please try again.`)
  return refusal({ message: textOf(error).trim() }, status)
}
