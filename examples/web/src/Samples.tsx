import { useEffect, useState } from 'react'
import type { Identities, Identity } from './identities'

type Props = { row: Identity; identities: Identities }

/** The first pictures that a trained model has made, and how more are made. */
export function Samples({ row, identities }: Props) {
  const [urls, setUrls] = useState<string[]>([])
  const paths = String(row.sample_paths) // another training has other ones
  useEffect(() => {
    let gone = false
    identities.samples(row).then((urls) => { if (!gone) setUrls(urls) }, () => undefined)
    return () => { gone = true }
    // eslint-disable-next-line react-hooks/exhaustive-deps -- whatever else changes in a row, its pictures stay
  }, [identities, row.id, paths])
  return (
    <>
      <ul className="photos samples">
        {urls.map((url, index) => (
          <li key={url}>
            <a href={url} target="_blank" rel="noreferrer"><img src={url} alt={`Picture ${index + 1}, made with the model`} /></a>
          </li>
        ))}
      </ul>
      <details>
        <summary>How to make more pictures</summary>
        <p>
          The model lies in the repo, which is private: only whoever runs this app can open it, and finds there the lines to paste
          for diffusers and for ComfyUI, under “How to use it”. Ask them for pictures, and tell them what to show.
          {row.trigger_word && ` A prompt calls this person “${row.trigger_word}”.`}
        </p>
      </details>
    </>
  )
}
