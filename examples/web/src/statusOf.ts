import type { Identity } from './identities'

/** What becomes of an identity, and of its training, in words. */
export function statusOf(row: Identity): string {
  switch (row.status) {
    case 'pending':
      return row.next_attempt_at ? `Will be tried again at ${new Date(row.next_attempt_at).toLocaleTimeString()}` : `Waiting${next(row)}`
    case 'publishing':
      return `Publishing ${row.images_published} of ${row.image_paths.length} photos${next(row)}`
    case 'published':
      return `Published${trainingOf(row)}`
    case 'training':
      return 'Training. It may take an hour, and goes on when you close this page.'
    case 'ready':
      return `Ready: the model was trained in ${lasting(row.training_seconds ?? 0)}${trainingOf(row)}`
    case 'failed':
      // The name in it is that of the object, which nobody has seen.
      return `Failed: ${row.error_message?.replace(/^Image (\d+) \(.*?\) /, 'Photo $1 ')}`
    default:
      return row.status // one that came after this page
  }
}

const next = (row: Identity) => (row.train ? '. A training follows.' : '')

/** What is said of a training that does not run. */
function trainingOf(row: Identity): string {
  const training = row.status === 'ready' ? 'Another training' : 'The training'
  if (row.training_error_message) return `. ${training} failed: ${row.training_error_message}`
  if (!row.train) return ''
  if (!row.training_waits_until) return `. ${training} waits for its turn.`
  const until = new Date(row.training_waits_until).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' })
  return `. ${training} waits until ${until}.`
}

function lasting(seconds: number): string {
  const minutes = Math.round(seconds / 60)
  return minutes < 1 ? 'less than a minute' : minutes === 1 ? 'a minute' : `${minutes} minutes`
}
