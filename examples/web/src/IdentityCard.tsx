import { useState } from 'react'
import { refusal, type Identities, type Identity } from './identities'
import { Photos } from './Photos'

type Props = { row: Identity; identities: Identities }

/** One identity: what its status is, and what can be done about it. */
export function IdentityCard({ row, identities }: Props) {
  const [busy, setBusy] = useState(false)
  const [refused, setRefused] = useState('')
  const fault = row.error_image

  const run = async (act: () => Promise<void>) => {
    setBusy(true)
    setRefused('')
    try {
      await act()
    } catch (error) {
      setRefused(refusal(error).message)
    }
    setBusy(false)
  }
  const remove = () => {
    if (confirm(`Delete “${row.identity_name}” with its photos and all that was made of them?`)) void run(() => identities.remove(row))
  }
  const replace = (number: number, file: File | undefined) => {
    if (file) void run(async () => {
      await identities.replace(row, number, file)
      await identities.retry(row)
    })
  }

  return (
    <li className="card" aria-label={row.identity_name} data-status={row.status}>
      <h3>{row.identity_name} <small><time dateTime={row.created_at}>{new Date(row.created_at).toLocaleString()}</time></small></h3>
      <p role="status">{statusOf(row)}</p>
      {row.status === 'publishing' && (
        <progress aria-label="Photos published" max={row.image_paths.length} value={row.images_published} />
      )}
      {row.huggingface_repo_url && (
        <p><a href={row.huggingface_repo_url} target="_blank" rel="noreferrer">Open the repo</a> <small>(private: only its owner can)</small></p>
      )}
      <Photos row={row} identities={identities} fault={fault} />
      <p role="alert" className="problems">{refused}</p>
      <p className="actions">
        {fault && (
          <label className={busy ? 'file busy' : 'file'}>
            Replace photo {fault} and try again
            <input type="file" accept="image/jpeg,image/png" disabled={busy} onChange={(event) => { replace(fault, event.target.files?.[0]) }} />
          </label>
        )}
        {row.status === 'failed' && <button disabled={busy} className={fault ? 'plain' : ''} onClick={() => void run(() => identities.retry(row))}>Try again</button>}
        <button disabled={busy} className="plain" onClick={remove}>Delete</button>
      </p>
    </li>
  )
}

function statusOf(row: Identity): string {
  switch (row.status) {
    case 'pending':
      return row.next_attempt_at ? `Will be tried again at ${new Date(row.next_attempt_at).toLocaleTimeString()}` : 'Waiting'
    case 'publishing':
      return `Publishing ${row.images_published} of ${row.image_paths.length} photos`
    case 'published':
      return 'Published'
    case 'failed':
      // The name in it is that of the object, which nobody has seen.
      return `Failed: ${row.error_message?.replace(/^Image (\d+) \(.*?\) /, 'Photo $1 ')}`
    default:
      return row.status // one that came after this page
  }
}
