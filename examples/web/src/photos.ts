/** What is wrong with chosen photos, found in the browser before anything is sent. */
import { describe } from './fileTypes'

/** What is wrong with a chosen photo, by its number from 1, or with all of them. */
export type Problem = { number: number | null; message: string }

export const LEAST = 3
export const MOST = 40
export const LARGEST = 20 * 1024 * 1024

const SIGNATURES: [string, string][] = [
  ['image/jpeg', 'ffd8ff'],
  ['image/png', '89504e470d0a1a0a'],
]
const digests = new WeakMap<File, Promise<string>>()
let last: Promise<unknown> = Promise.resolve() // one after the other: the whole file is in memory meanwhile

/** Return what is wrong with the chosen photos; nothing is sent. */
export async function check(files: readonly File[]): Promise<Problem[]> {
  const problems: Problem[] = []
  if (files.length < LEAST || files.length > MOST)
    problems.push({ number: null, message: `${files.length} photos were chosen; ${LEAST} to ${MOST} are needed.` })
  for (const [index, file] of files.entries()) {
    const what = (await problemOf(file)) ?? (await sameAs(file, files.slice(0, index)))
    if (what) problems.push({ number: index + 1, message: `Photo ${index + 1} (${file.name}) ${what}.` })
  }
  return problems
}

/** Return the rest of a sentence about one file, or null if nothing is wrong with it. */
export async function problemOf(file: File): Promise<string | null> {
  if (!file.size) return 'is empty; choose it again'
  if (file.size > LARGEST) return 'is larger than 20 MiB; make it smaller'
  try {
    return (await typeOf(file)) ? null : describe(await firstBytes(file))
  } catch {
    return 'cannot be read; choose it again'
  }
}

/** Return the type by the first bytes, whatever the name says; null for anything but a JPG or PNG. */
export async function typeOf(file: File): Promise<string | null> {
  const start = hex(await firstBytes(file))
  return SIGNATURES.find(([, signature]) => start.startsWith(signature))?.[0] ?? null
}

/** Return the SHA-256 of the content, which is read once. */
export function digest(file: File): Promise<string> {
  const read = async () => hex(await crypto.subtle.digest('SHA-256', await file.arrayBuffer()))
  const known = digests.get(file) ?? last.then(read)
  last = known.catch(() => undefined)
  digests.set(file, known)
  return known
}

async function sameAs(file: File, others: readonly File[]): Promise<string | null> {
  for (const [index, other] of others.entries())
    if (other.size === file.size && (await digest(other)) === (await digest(file)))
      return `is the same as photo ${index + 1}; remove one of them`
  return null
}

async function firstBytes(file: File): Promise<Uint8Array> {
  return new Uint8Array(await file.slice(0, 512).arrayBuffer())
}

function hex(bytes: ArrayBuffer | Uint8Array): string {
  return Array.from(new Uint8Array(bytes), (byte) => byte.toString(16).padStart(2, '0')).join('')
}
