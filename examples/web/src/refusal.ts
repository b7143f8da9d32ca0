/** What was refused, as a sentence for the user; `reason` is for the page. */
export class Refusal extends Error {
  readonly reason: 'refused' | 'session' | 'connection'
  constructor(message: string, reason: Refusal['reason'] = 'refused') {
    super(message)
    this.reason = reason
  }
}

const ENDED = 'Your session has ended; please sign in again. What was uploaded is kept.'
const UNREACHABLE = 'The server cannot be reached; please try again. What was uploaded is kept.'
const NOT_ALLOWED = 'This is not allowed, or you have stored as many photos as you may; delete an identity first.'

export const sessionEnded = () => new Refusal(ENDED, 'session')

/** Make a sentence of what was thrown, of an error that supabase-js has returned, or of the text of an answer. */
export function refusal(error: unknown, status?: number): Refusal {
  if (error instanceof Refusal) return error
  const { message = '', code = '', name = '' } = error as { message?: string; code?: string; name?: string }
  if (status === 401 || code.startsWith('PGRST30') || /"exp\\?" claim|session missing|refresh token/i.test(message))
    return sessionEnded()
  if (/failed to fetch|networkerror|load failed/i.test(message) || name === 'AuthRetryableFetchError')
    return new Refusal(UNREACHABLE, 'connection')
  if (code === '42501' || message.includes('row-level security')) return new Refusal(NOT_ALLOWED)
  return new Refusal(/[.?!]$/.test(message) ? message : `${message || 'The server has refused this'}.`)
}

/** Return what supabase-js has answered with; throw a Refusal for an error. */
export function answered<T>(answer: { data: T | null; error: unknown; status?: number }): T {
  if (answer.error || answer.data === null) throw refusal(answer.error ?? {}, answer.status)
  return answer.data
}
